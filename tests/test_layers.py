"""The architecture, as a table that the imports of every module are held to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import harn

ROOT = Path(harn.__file__).parent

LAYERS: dict[str, int] = {
    "": 0,
    "errors": 0,
    "model": 0,
    "wire": 0,
    "clocks": 0,
    "files": 0,
    "processes": 0,
    "waiting": 0,
    "lifecycle": 0,
    "observability": 0,
    "handlers": 0,
    "secrets": 1,
    "auth": 1,
    "operations": 1,
    "options": 1,
    "store": 1,
    "manifest": 1,
    "discovery": 1,
    "vm": 1,
    "systemd": 1,
    "server": 2,
    "triggers": 2,
    "connectors": 3,
    "destinations": 3,
    "queues": 3,
    "plugins": 4,
    "dispatch": 4,
    "reload": 4,
    "deliveries": 5,
    "alerts": 5,
    "circuits": 5,
    "rollout": 5,
    "schedules": 5,
    "servers": 5,
    "history": 5,
    "backup": 5,
    "api_keys": 5,
    "statistics": 5,
    "traces": 5,
    "listener": 6,
    "watch": 6,
    "upgrade": 6,
    "workers": 6,
    "console": 6,
    "orchestrator": 7,
    "tap": 8,
    "cli": 8,
    "__main__": 9,
}
"""Layer by room: a room is a package or module directly in ``harn``. Imports point down."""

FACADES = frozenset(("interfaces", "testing"))
"""Rooms for others to import from; they may import anything public, and no room of harn imports them.

Only ``cli`` does: ``harn connector check`` runs the suite for authors of connectors.
"""

SIDEWAYS = frozenset(
    (
        *(("auth", "secrets"), ("auth", "operations"), ("console", "listener"), ("history", "rollout")),
        ("workers", "upgrade"),
    )
)
"""Pairs of rooms of one layer of which the first may import the second."""

VALUES = frozenset(("errors", "model", "wire", "clocks", "files", "lifecycle"))
"""Rooms of the lowest layer that the others in it may import, as they are one idea in several modules."""

CHILD_MAY = frozenset(("handlers", "model", "processes", "vm"))
"""The modules of harn that the child's program may import: an interpreter holds neither Twisted nor the store."""

PROVIDERS = "harn.connectors.providers"
"""The package of the room of connectors that stands above the rest of it."""

FORBIDDEN_NAMES = frozenset(("util", "utils", "common", "helper", "helpers", "manager", "misc"))
LONGEST = 400


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module's dotted name and file."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that a module imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def room(name: str) -> str:
    """Return the room of a module of harn: ``harn.store.sqlite`` is in ``store``."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def may_import(importer: str, imported: str) -> bool:
    """Return whether a module in the first room may import from the second."""
    if importer in FACADES or importer == imported:
        return True
    if imported in FACADES:
        return (importer, imported) == ("cli", "testing")  # one command runs the public suite
    if LAYERS[imported] < LAYERS[importer] or (importer, imported) in SIDEWAYS:
        return True
    return LAYERS[imported] == 0 and imported in VALUES | {""}


class LayerTests(SynchronousTestCase):
    """The table of layers."""

    def test_every_room_has_a_layer(self) -> None:
        """A new room must be given its place in the table."""
        rooms = {room(name) for name, _ in modules()}
        self.assertEqual(rooms - LAYERS.keys() - FACADES, set())

    def test_imports_point_down(self) -> None:
        """No module imports from a layer above its own, or from its neighbours."""
        wrong = []
        for name, path in modules():
            for line, imported in imports(path):
                if imported.split(".")[0] != "harn":
                    continue
                target = room(imported) if room(imported) in LAYERS or room(imported) in FACADES else ""
                if not may_import(room(name), target):
                    wrong.append(f"{path.relative_to(ROOT.parent)}:{line}: {imported}")
        self.assertEqual(wrong, [])

    def test_the_rule_can_be_broken(self) -> None:
        """The rule refuses imports that point up or sideways, and accepts those that point down."""
        self.assertFalse(may_import("store", "dispatch"))
        self.assertFalse(may_import("store", "manifest"))
        self.assertFalse(may_import("dispatch", "reload"))
        self.assertFalse(may_import("secrets", "auth"))
        self.assertTrue(may_import("auth", "secrets"))
        self.assertTrue(may_import("listener", "reload"))

    def test_providers_are_plugins(self) -> None:
        """What providers are made of does not import one: another package's provider is made of the same."""
        wrong = [
            f"{path.relative_to(ROOT.parent)}:{line}: {imported}"
            for name, path in modules()
            if name.startswith("harn.connectors.") and not name.startswith(PROVIDERS)
            for line, imported in imports(path)
            if imported.startswith(PROVIDERS)
        ]
        self.assertEqual(wrong, [])

    def test_only_the_outermost_import_the_reactor(self) -> None:
        """Everything below ``harn.tap`` and ``harn.cli`` is given its reactor."""
        wrong = [
            f"{path.relative_to(ROOT.parent)}:{line}"
            for name, path in modules()
            if room(name) not in ("tap", "cli")
            for line, imported in imports(path)
            if imported.startswith("twisted.internet.reactor")
        ]
        self.assertEqual(wrong, [])

    def test_the_handlers_room_is_light(self) -> None:
        """The modules of harn that the interpreter's child process imports need only msgspec and Python's own."""
        todo, seen, foreign = ["harn.vm.program", "harn.handlers"], set[str](), set[str]()
        files = dict(modules())
        while todo:
            name = todo.pop()
            if name in seen or name not in files:
                continue
            seen.add(name)
            for _, imported in imports(files[name]):
                if imported.split(".")[0] == "harn":
                    todo += [imported, imported.rpartition(".")[0]]
                else:
                    foreign.add(imported.split(".")[0])
        self.assertEqual(foreign & {"twisted", "zope", "attr", "attrs", "klein", "treq", "OpenSSL"}, set())
        self.assertEqual({room(name) for name in seen} - CHILD_MAY - {""}, set())


class ModuleTests(SynchronousTestCase):
    """What holds for every module."""

    def test_no_module_is_named_for_nothing(self) -> None:
        """A module is named for its subject, never for being of use."""
        wrong = [name for name, _ in modules() if name.rpartition(".")[2] in FORBIDDEN_NAMES]
        self.assertEqual(wrong, [])

    def test_no_module_is_too_long(self) -> None:
        """A module that grew past the limit is two ideas."""
        wrong = [name for name, path in modules() if len(path.read_text("utf-8").splitlines()) > LONGEST]
        self.assertEqual(wrong, [])

    def test_every_module_says_what_it_is(self) -> None:
        """Each module opens with a docstring whose first line is a sentence."""
        wrong = []
        for name, path in modules():
            said = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").strip()
            if not said or said.split("\n\n")[0].rstrip()[-1] not in ".:":
                wrong.append(name)
        self.assertEqual(wrong, [])

    def test_no_inline_callbacks(self) -> None:
        """Coroutines are the one way to wait."""
        wrong = [name for name, path in modules() if "inlineCallbacks" in path.read_text("utf-8")]
        self.assertEqual(wrong, [])
