"""
The pin: after a rollback or an automatic revert the server stays on the generation that it went back to.

The files differ from that generation then, on purpose. As long as they read as they did at that moment, neither the
watcher nor a restart adopts them. A reload that is asked for ends the pin, and so does any change of these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import frozen

CHECKPOINT = "replaced"
"""The name under which the store keeps it."""


@frozen
class Pin:
    """:ivar files: digests, by path, of manifest and modules as they read when the earlier content replaced them."""

    files: Mapping[str, str]

    def holds(self, content: Mapping[str, str]) -> bool:
        """Return whether files with these digests (by path) still read as they did when the pin was set."""
        return all(content.get(path) == digest for path, digest in self.files.items())

    def to_checkpoint(self) -> dict[str, str]:
        """Return the form in which the store keeps it."""
        return dict(self.files)

    @classmethod
    def from_checkpoint(cls, kept: Any) -> Pin | None:
        """
        Read the form that `to_checkpoint` returns; None for an empty one.

        :raises msgspec.ValidationError: it has another shape.
        """
        files = msgspec.convert(kept, type=dict[str, str])
        return cls(files) if files else None
