"""Values that cross the interpreter's interface."""

from __future__ import annotations

from attrs import frozen

from harn.model.exchange import Returned
from harn.model.references import FunctionReference

__all__ = ["Call", "Returned"]


@frozen(kw_only=True)
class Call:
    """
    One attempt of one delivery: the predicate first (if any), then the handler.

    :ivar handler: None to run the predicate alone.
    :ivar envelope: encoded `harn.model.event.Envelope`.
    :ivar secrets: references of the secrets that it may fetch; None: any.
    :ivar timeout: seconds that predicate and handler may run together.
    """

    binding: str
    trigger_id: str
    event_id: str
    handler: FunctionReference | None
    predicate: FunctionReference | None
    envelope: bytes
    body: bytes
    attempt: int
    timeout: float
    replay_of: str | None = None
    secrets: tuple[str, ...] | None = None

    def __attrs_post_init__(self) -> None:
        if self.handler is None and self.predicate is None:
            raise ValueError("a call needs a handler or a predicate")

    def refusal_of(self, reference: str) -> str:
        """Return why it may not fetch a secret; empty when it may."""
        if self.secrets is None or reference in self.secrets:
            return ""
        allowed = ", ".join(self.secrets) or "none"
        return f"{reference} is not among the handler_secrets of trigger {self.trigger_id}, which name {allowed}"
