"""Stand-ins for commands that look at a server again and again: what each look finds, and the waits between them."""

from __future__ import annotations

from typing import Generic, TypeVar

from harn.errors import HarnError

T = TypeVar("T")


class Looks(Generic[T]):
    """Gives one look after the other, or raises it, where it is an error."""

    def __init__(self, *looks: T | HarnError) -> None:
        self.rest = list(looks)

    def read(self) -> T:
        """Return the next look."""
        look = self.rest.pop(0)
        if isinstance(look, HarnError):
            raise look
        return look


class Waits:
    """
    Waits for no time, and records for how long it was to wait.

    :param last: after so many waits the user ends the looking.
    """

    def __init__(self, last: int | None = None) -> None:
        self.seconds: list[float] = []
        self._last = last

    def wait(self, seconds: float) -> bool:
        """Record it."""
        self.seconds.append(seconds)
        return len(self.seconds) == self._last
