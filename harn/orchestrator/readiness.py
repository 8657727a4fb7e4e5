"""Whether the server should get traffic now, and if not, why."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

STARTING = "starting"
DRAINING = "draining"
EVENT_LOG_AWAY = "event log away"
INTERPRETER_DOWN = "interpreter down"


@define
class Readiness:
    """
    :ivar phase: `STARTING`, `DRAINING`, or None while it serves.
    """

    store_available: Callable[[], bool]
    interpreter_up: Callable[[], bool]
    phase: str | None = STARTING

    def reasons(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        if self.phase is not None:
            return [self.phase]
        found = []
        if not self.store_available():
            found.append(EVENT_LOG_AWAY)
        if not self.interpreter_up():
            found.append(INTERPRETER_DOWN)
        return found
