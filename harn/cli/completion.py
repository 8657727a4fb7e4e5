"""
The values that a shell completes: triggers, binding versions and generations, from the state file or the manifest.

A shell asks with each press of a key, so that no server is asked, and no connector is loaded. A file that cannot be
read has no values.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from harn.options import MANIFEST, STATE_DIR, value_of
from harn.store.lock import read_state

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST = 1000
"""Values that a shell gets at most."""


def complete(name: str, context: click.Context, incomplete: str) -> list[str]:
    """
    Return the values of a parameter that begin with ``incomplete``.

    :param name: of the parameter: ``trigger``, ``binding`` or ``generation``; others have no values.
    """
    try:
        found = list(dict.fromkeys(_values(name, context.params)))
    except (OSError, ValueError):
        return []
    return [value for value in found if value.startswith(incomplete)][:MOST]


def complete_triggers(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of triggers that begin with ``incomplete``."""
    return complete("trigger", context, incomplete)


def complete_bindings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the keys of binding versions that begin with ``incomplete``."""
    return complete("binding", context, incomplete)


def complete_data(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the files that continue ``@FILE``; a text is the user's own."""
    if not incomplete.startswith("@"):
        return []
    folder, name = os.path.split(incomplete[1:])
    with suppress(OSError), os.scandir(folder or ".") as found:
        entries = sorted((each for each in found if each.name.startswith(name)), key=lambda each: each.name)
        shown = [each for each in entries if name or not each.name.startswith(".")]
        return ["@" + os.path.join(folder, each.name) + ("/" if each.is_dir() else "") for each in shown][:MOST]
    return []


def complete_path(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to complete a path."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _values(name: str, given: dict[str, Any]) -> Iterator[str]:
    place = {key: given.get(key) for key in ("config", "state_dir")}
    state = read_state(value_of(STATE_DIR, place, os.environ)) or {}
    entries = list(_entries(state))
    if name == "trigger":
        if entries:
            yield from (str(each["id"]) for each in entries)
        else:
            yield from _written(value_of(MANIFEST, place, os.environ))
    elif name == "binding":
        yield from (f"{each['id']}@v{each.get('version')}" for each in entries)
    elif name == "generation":
        newest = state.get("generation")
        if isinstance(newest, int):
            yield from (str(number) for number in range(newest, max(0, newest - MOST), -1))


def _entries(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the triggers of a state file or manifest, which anybody may have written."""
    triggers = document.get("triggers")
    for each in triggers if isinstance(triggers, list) else ():
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            yield each


def _written(path: str) -> Iterator[str]:
    """Yield the ids that a manifest has, and the files that it includes."""
    document = _parsed(path)
    yield from (str(each["id"]) for each in _entries(document))
    patterns = document.get("include")
    if isinstance(patterns, list):
        from harn.manifest.source import find_included

        named = [each for each in patterns if isinstance(each, str)]
        for included in find_included(os.path.abspath(path), named):
            yield from (str(each["id"]) for each in _entries(_parsed(included)))


def _parsed(path: str) -> Mapping[str, Any]:
    """Return the document of a file; of one that cannot be read, or is not TOML, an empty one."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return {}
