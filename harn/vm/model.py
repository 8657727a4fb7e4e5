"""What crosses the interpreter's interface."""

from __future__ import annotations

from attrs import frozen

from harn.model.references import FunctionReference


@frozen(kw_only=True)
class Call:
    """
    One attempt of one delivery: the predicate first (if any), then the handler.

    :ivar envelope: encoded `harn.model.event.Envelope`.
    :ivar timeout: seconds that predicate and handler may run together.
    """

    binding: str
    trigger_id: str
    event_id: str
    handler: FunctionReference
    predicate: FunctionReference | None
    envelope: bytes
    body: bytes
    attempt: int
    timeout: float
    replay_of: str | None = None


@frozen
class Returned:
    """
    A call that did not fail.

    :ivar result: the handler's result as JSON, or None when the predicate said no.
    """

    result: bytes | None
