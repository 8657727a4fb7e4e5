"""Audit records: who had the server do what, on ``audit.operations``, for each operation that changes something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen

from harn.clocks import WallTime
from harn.model.references import uuid7
from harn.operations.model import Caller, Counts, Operation
from harn.operations.parameters import Parameters, given

TOPIC = "audit.operations"
DONE, FAILED = "done", "failed"
SELECTING = frozenset(("event_id", "event_ids", "where", "state", "trigger", "kind", "since", "job", "binding"))
"""Parameters that say what an operation is about: the record's ``filter``."""

Note = Callable[[str, str, Mapping[str, Any]], Awaitable[object]]
"""Appends a record: topic, kind and payload. What goes wrong with it is not the operation's failure."""


@frozen(kw_only=True)
class Audit:
    """Writes the records."""

    wall: WallTime
    note: Note

    async def record(
        self,
        operation: Operation[Any, Any, Any],
        caller: Caller,
        wanted: Parameters,
        outcome: str,
        counts: Counts | None = None,
        error: str | None = None,
    ) -> None:
        """
        Record one operation that has ended; secrets among its parameters are left out, and so are defaults.

        :param outcome: `DONE`, or `FAILED` with the ``error``.
        :param counts: how much it changed.
        """
        parameters = {each.key: value for each, value in given(operation.fields, wanted) if not each.is_secret}
        payload = {
            "id": f"op_{uuid7(self.wall.seconds())}",
            "actor": caller.actor,
            "role": caller.role.value,
            "operation": operation.recorded_as,
            "parameters": parameters,
            "filter": {key: value for key, value in parameters.items() if key in SELECTING},
            "outcome": outcome,
            "counts": dict(counts or {}),
            **({} if error is None else {"error": error}),
        }
        await self.note(TOPIC, operation.recorded_as, payload)
