"""A delivery as its destination sees it: one attempt to hand an event over, and how that went."""

from __future__ import annotations

from attrs import frozen

from harn.model.event import TriggerEvent, decode_envelope
from harn.model.references import FunctionReference


@frozen(kw_only=True)
class OutgoingDelivery:
    """
    One attempt of one delivery.

    :ivar target: the destination as the manifest's ``handler`` names it, for example ``handlers:on_issue``.
    :ivar binding: the key of the binding version, for example ``gh@v2``.
    :ivar envelope: encoded `harn.model.event.Envelope`; ``body``: the event's body. `event` reads both.
    :ivar attempt: from 1.
    :ivar timeout: seconds that the attempt may take, its predicate included.
    :ivar predicate: the function that decides first whether to deliver; None when there is none, or it has said yes.
    :ivar replay_of: the id of the event that was sent again, if it was.
    :ivar secrets: references of the secrets that a handler may ask for; None: any.
    """

    target: str
    binding: str
    trigger_id: str
    event_id: str
    envelope: bytes
    body: bytes
    attempt: int
    timeout: float
    predicate: FunctionReference | None = None
    replay_of: str | None = None
    secrets: tuple[str, ...] | None = None

    def event(self) -> TriggerEvent:
        """Return the event; each call decodes it."""
        return TriggerEvent(decode_envelope(self.envelope), self.body)


@frozen
class Returned:
    """
    An attempt that did not fail.

    :ivar result: its result as JSON, ``null`` where there is nothing to keep; None when the predicate said no. Of a
        predicate that was asked alone, ``true`` when it said yes.
    """

    result: bytes | None = b"null"
