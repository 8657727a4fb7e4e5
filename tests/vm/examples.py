"""Stand-ins that tests of several modules use."""

from __future__ import annotations


class Unobserved:
    """Takes notice of no import."""

    def import_begins(self, module: str) -> None:
        """Do nothing."""
