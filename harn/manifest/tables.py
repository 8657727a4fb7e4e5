"""One table of the manifest while it is read: its keys, its path, and the diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from harn.manifest.diagnostics import Diagnostics, describe, quote, suggest
from harn.manifest.fields import Field
from harn.manifest.lines import KeyPath


class Table(msgspec.Struct, frozen=True, gc=False):
    """
    One table of the manifest, while it is read. A struct, since a load makes some for each trigger.

    :ivar raw: its keys and values.
    :ivar spelled: for a key that has another spelling, the one the author chose.
    """

    raw: Mapping[str, Any]
    path: KeyPath
    diagnostics: Diagnostics
    spelled: Mapping[str, str] = {}

    @classmethod
    def of(cls, value: Any, path: KeyPath, diagnostics: Diagnostics) -> Table | None:
        """Return a table of ``value``; None, and a diagnostic, when it is not a table."""
        if isinstance(value, dict):
            return cls(value, path, diagnostics)
        diagnostics.add(path, f"must be a table, got {describe(value)}")
        return None

    def respelled(self, known: Mapping[str, str]) -> Table:
        """Accept other spellings of keys; ``known`` maps each to the usual one."""
        spelled = {known[key]: key for key in self.raw if key in known}
        if not spelled:
            return self
        for usual, other in spelled.items():
            if usual in self.raw:
                self.diagnostics.add((*self.path, other), f"is {quote(usual)} in another spelling, and both are given")
        raw = {known.get(key, key): value for key, value in self.raw.items()}
        return Table(raw, self.path, self.diagnostics, spelled)

    def place(self, key: str) -> KeyPath:
        """Return the path of ``key`` as the author spelled it."""
        return (*self.path, self.spelled.get(key, key))

    def take(self, key: str, shape: Field, default: Any = None) -> Any:
        """Read one key; ``default`` when it is absent or wrong."""
        value = self.raw.get(key)
        if value is None:
            return default
        read = shape.read(value, (*self.path, key) if not self.spelled else self.place(key), self.diagnostics)
        return default if read is None else read

    def table(self, key: str) -> Table | None:
        """Enter a sub-table; None when it is absent, or wrong."""
        value = self.raw.get(key)
        return None if value is None else Table.of(value, self.place(key), self.diagnostics)

    def problem(self, key: str, message: str, hint: str = "") -> None:
        """Record a diagnostic about ``key``."""
        self.diagnostics.add(self.place(key), message, hint)

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Record a diagnostic about every key that is not ``known``."""
        for key in self.raw.keys() - known:
            self.problem(key, "unknown key", suggest(key, known))
