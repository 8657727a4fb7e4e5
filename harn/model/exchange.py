"""The values exchanged with plugins: the request that a connector gets, the delivery that a destination gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from harn.model.event import TriggerEvent, decode_envelope
from harn.model.references import FunctionReference
from harn.model.trace import TraceContext, passed_on


class InboundRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One request to a trigger's route.

    :ivar headers: names in lower case; of a repeated header the values joined by ``, `` (RFC 9110, 5.3).
    :ivar body: exactly the bytes received, in ``verify``; in ``normalize`` without their content coding.
    :ivar received_at: seconds, Unix.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    received_at: float


class OutgoingDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    One attempt of one delivery.

    :ivar target: the destination as the manifest's ``handler`` names it, for example ``handlers:on_issue``.
    :ivar binding: the key of the binding version, for example ``gh@v2``.
    :ivar envelope: encoded `harn.model.event.Envelope`.
    :ivar body: the event's body. `event` reads both.
    :ivar attempt: from 1.
    :ivar timeout: seconds that the attempt may take, its predicate included.
    :ivar predicate: the function that decides first whether to deliver; None when there is none, or it has said yes.
    :ivar replay_of: the id of the event that was sent again, if it was.
    :ivar secrets: references of the secrets that a handler may ask for; None: any.
    :ivar trace: the trace context of this attempt; None while traces are off. `trace_headers` is what to send on.
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
    trace: TraceContext | None = None

    def trace_headers(self) -> dict[str, str]:
        """
        Return ``traceparent`` and ``tracestate`` for a request that carries this delivery on.

        While traces are off, those that the sender's request came with; none where it had none.
        """
        return (self.trace or passed_on(self.event())).headers()

    def event(self) -> TriggerEvent:
        """Return the event; each call decodes it."""
        return TriggerEvent(decode_envelope(self.envelope), self.body)


class Returned(msgspec.Struct, frozen=True, gc=False):
    """
    An attempt that did not fail.

    :ivar result: its result as JSON, ``null`` where there is nothing to keep; None when the predicate said no. Of a
        predicate that was asked alone, ``true`` when it said yes.
    """

    result: bytes | None = b"null"


Ending: TypeAlias = tuple[Any, Returned | Exception]
"""An attempt, as its maker passed it on to be run, and what it returned, or failed with."""


class Endings(Protocol):
    """Takes attempts that have ended, each of them once."""

    def ended(self, endings: Sequence[Ending]) -> None:
        """Called with attempts that have ended: what has become known together comes together."""


class Running(Protocol):
    """An attempt that runs."""

    def cancel(self) -> None:
        """End it now, as if its time had run out: it fails with ``CancelledError``, unless it has ended."""
