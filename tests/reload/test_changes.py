"""Changes that a start finds."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.reload.changes import changes_of_restart, trigger_ids
from harn.reload.generation import VersionNumbers
from harn.triggers.reconcile import Plan

BEFORE = b"""
[[triggers]]
id = "changed"
[[triggers]]
id = "gone"
[[triggers]]
id = "same"
"""


class Versions(VersionNumbers):
    """Numbers of triggers: one that was removed earlier, and came back as it was, has one too."""

    def __init__(self) -> None:
        super().__init__({})

    def kept(self, definition: Any) -> int | None:
        return {"same": 1, "back": 2}.get(definition)


class RestartTests(SynchronousTestCase):
    def test_compared_with_what_served_last(self) -> None:
        """Triggers count as changed since the last generation, whatever earlier ones had."""
        definitions: dict[str, Any] = {name: name for name in ("back", "changed", "new", "same")}
        found = changes_of_restart(BEFORE, definitions, Versions())
        expected = Plan(added=("back", "new"), modified=("changed",), removed=("gone",), unchanged=("same",))
        self.assertEqual(found, expected)

    def test_unreadable(self) -> None:
        """From a manifest that cannot be read, everything counts as added."""
        for text in (b"\xff", b"triggers = 5", b"[[triggers]]\nname = 1", b"no toml"):
            self.assertEqual(trigger_ids(text), frozenset())
        definitions: dict[str, Any] = {"same": "same"}
        self.assertEqual(changes_of_restart(b"no toml", definitions, Versions()).added, ("same",))
