"""Validation of all tables of a manifest together, with every problem at once."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from harn.manifest.alerts import check_mailable
from harn.manifest.diagnostics import Diagnostics, KeyPath, Locator, name_trigger, quote, suggest
from harn.manifest.fields import Text, Texts
from harn.manifest.model import TriggerSpec
from harn.manifest.settings import OrchestratorSettings, check_orchestrator
from harn.manifest.source import fault_of_include
from harn.manifest.tables import Table
from harn.manifest.vocabulary import default_path
from harn.model.references import parse_function_reference

_KNOWN = frozenset(("include", "package", "exports", "orchestrator", "defaults", "triggers"))
_LATER = frozenset(("providers", "personas", "connector_contract"))
INCLUDE = Texts("Further files with [[triggers]], as globs relative to the manifest.", Text("", fault_of_include))
_PACKAGE = Text("The package's name; the directory's by default.")


class Head(Struct, frozen=True, kw_only=True):
    """The checked tables of a manifest other than the triggers."""

    package: str
    exports: dict[str, str]
    orchestrator: OrchestratorSettings
    include: tuple[str, ...]


def check_head(raw: Mapping[str, Any], path: str, diagnostics: Diagnostics) -> Head:
    """
    Check every table except the triggers.

    :param raw: the top level of the manifest.
    :param path: the manifest's absolute path.
    """
    for key in raw.keys() - _KNOWN:
        if key in _LATER:
            diagnostics.add((key,), "is not supported yet", "remove it")
        else:
            what = "unknown table" if isinstance(raw[key], dict | list) else "unknown key"
            diagnostics.add((key,), what, suggest(key, _KNOWN))
    if "triggers" in raw:
        diagnostics.add(("triggers",), "must be an array of tables", "begin each trigger with [[triggers]]")
    directory = os.path.basename(os.path.dirname(path)) or "harn"
    return Head(
        package=_check_package(raw, diagnostics) or directory,
        exports=_check_exports(raw, diagnostics),
        orchestrator=check_orchestrator(raw.get("orchestrator"), diagnostics),
        include=Table(raw, (), diagnostics).take("include", INCLUDE, ()),
    )


def _check_package(raw: Mapping[str, Any], diagnostics: Diagnostics) -> str | None:
    package = Table.of(raw.get("package", {}), ("package",), diagnostics)
    if package is None:
        return None
    package.refuse_unknown(frozenset(("name",)))
    name: str | None = package.take("name", _PACKAGE)
    return name


def _check_exports(raw: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, str]:
    exports = Table.of(raw.get("exports", {}), ("exports",), diagnostics)
    if exports is None:
        return {}
    checked: dict[str, str] = {}
    for name in exports.raw:
        try:
            parse_function_reference(f"{name}:function")
        except ValueError:
            exports.problem(name, "must be a name that Python can import", "use letters, digits, _ and dots")
        path = exports.take(name, _EXPORT)
        if path is not None:
            checked[name] = posixpath.normpath(path)
    return checked


def _fault_of_export(text: str) -> tuple[str, str] | None:
    hint = 'write a path relative to the manifest, for example "src/handlers.py"'
    if not text.isprintable() or "\\" in text:
        return f"must be a usable path, got {quote(text)}", hint
    folded = posixpath.normpath(text)
    if text.startswith(("/", "~")) or folded == ".." or folded.startswith("../"):
        return f"{quote(text)} leads out of the manifest's directory", hint
    if folded == "." or (not folded.endswith(".py") and "." in posixpath.basename(folded)):
        return f"{quote(text)} is neither a Python file nor the directory of a package", hint
    return None


_EXPORT = Text("KeyPath of a module, relative to the manifest.", _fault_of_export)


def check_together(
    specs: Sequence[TriggerSpec | None],
    settings: OrchestratorSettings,
    locator: Locator,
    diagnostics: Diagnostics,
) -> None:
    """
    Check across tables: that there are triggers, that no two share an id or a path, that their alerts can be mailed.

    :param specs: in the order of the file; ids and paths are empty where they are wrong.
    :param locator: finds the lines of the other trigger.
    """
    if not specs and not settings.allow_empty:
        hint = "add one, or set allow_empty = true in [orchestrator]"
        diagnostics.add(("triggers",), "there is no [[triggers]] at all", hint)
    if len({spec.id for spec in specs if spec is not None}) < len(specs):
        _refuse_twins("id", [spec.id if spec is not None else "" for spec in specs], specs, locator, diagnostics)
    if len({spec.path for spec in specs if spec is not None}) < len(specs):
        _refuse_twins("path", [spec.path if spec is not None else "" for spec in specs], specs, locator, diagnostics)
        _refuse_second_answers(specs, diagnostics)
    if settings.smtp.host is None:
        for index, spec in enumerate(specs):
            if spec is not None and spec.alerts:
                check_mailable(("triggers", index), spec.alerts, settings.smtp, diagnostics)


def _refuse_twins(
    key: str, values: list[str], specs: Sequence[TriggerSpec | None], locator: Locator, diagnostics: Diagnostics
) -> None:
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if not value:
            continue
        other = first.setdefault(value, index)
        if other == index:
            continue
        spec, twin = specs[index], specs[other]
        assert spec is not None
        assert twin is not None
        if key == "path" and spec.id == twin.id and value == default_path(spec.id):
            continue  # It follows from the id, which is a problem already.
        if key == "path" and spec.id != twin.id and receives_alike(spec, twin):
            continue
        side = name_trigger(other, twin.id)
        file, line = locator.place(_written(locator, other, key))
        elsewhere = "" if file == locator.place(_written(locator, index, key))[0] else f" of {file}"
        hint = "give each trigger an id of its own"
        if key == "path":
            hint = "give one of them another path, or both the same provider, settings and secrets, to share it"
        message = f"{quote(value)} is also the {key} of {side} on line {line}{elsewhere}"
        diagnostics.add(_written(locator, index, key), message, hint)


def receives_alike(one: TriggerSpec, other: TriggerSpec) -> bool:
    """Return whether two triggers verify a request in the same way, so that they can share a path."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("provider", "kind", "settings", "secrets", "allow_from", "client_ca")
    )


def _refuse_second_answers(specs: Sequence[TriggerSpec | None], diagnostics: Diagnostics) -> None:
    """Add a problem for each trigger with ``respond`` whose path has such a trigger already: there is one answer."""
    first: dict[str, str] = {}
    for index, spec in enumerate(specs):
        if spec is None or spec.respond is None or not spec.path:
            continue
        other = first.setdefault(spec.path, spec.id)
        if other != spec.id:
            message = f"{quote(spec.path)} is shared, and trigger {quote(other)} gives the answer already"
            diagnostics.add(("triggers", index, "respond"), message, "keep respond in one of them")


def _written(locator: Locator, index: int, key: str) -> KeyPath:
    """Return the path of ``key``, which may be written in ``match`` instead."""
    place: KeyPath = ("triggers", index, key)
    inner: KeyPath = ("triggers", index, "match", key)
    return inner if not locator.has(place) and locator.has(inner) else place
