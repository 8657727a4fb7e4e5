"""The audit log: a record on ``audit.operations`` for each operation that changed something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import field, frozen

from harn.clocks import WallTime
from harn.model.identifiers import uuid7

TOPIC = "audit.operations"
LEFT_OUT = frozenset(("payload", "request_id"))

Note = Callable[[str, str, Mapping[str, Any]], Awaitable[object]]
"""Appends a record: topic, kind and payload. A failure to append does not fail the operation."""


@frozen(kw_only=True)
class Acting:
    """
    An operation that changes something, for its record.

    :ivar name: for example ``drains.cancel``.
    :ivar counts: returns how much a result changed; empty for a result that changed nothing, such as a dry run.
    :ivar about: its subject, where that is in its path and not in its body.
    """

    name: str
    counts: Callable[[Any], Mapping[str, int]]
    about: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Audit:
    """Writes the records."""

    wall: WallTime
    note: Note

    async def record(self, acting: Acting, actor: str, asked: Mapping[str, Any], result: Any) -> None:
        """
        Record one operation that has succeeded.

        :param asked: the members of its body. The payload of an event is left out, since it may be a secret, and so is
            the id that makes a request's signature unique.
        """
        counts = acting.counts(result)
        if not counts:
            return
        parameters = {**acting.about, **{name: value for name, value in asked.items() if name not in LEFT_OUT}}
        payload = {
            "id": f"op_{uuid7(self.wall.seconds())}",
            "actor": actor,
            "operation": acting.name,
            "parameters": parameters,
            "counts": dict(counts),
        }
        await self.note(TOPIC, acting.name, payload)
