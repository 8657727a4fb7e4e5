"""
The trace of an event, derived from its envelope: as durable as the event, and the same after a restart and on each
server.

An event belongs to the trace of its request, or, where that names none, to one of its own, whose id is that of the
event's ``trace_id``. A replay begins a new trace, and names the old one.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from random import Random

import msgspec
from msgspec import Struct, structs

from harn.model.event import decode_envelope, encode_envelope
from harn.model.trace import NO_TRACE, RANDOM, SAMPLED, TraceContext, parse_traceparent

ALWAYS_ON, ALWAYS_OFF, RATIO = "always_on", "always_off", "traceidratio"

_UUID = re.compile(r"(?:trace_|trigger_evt_)([0-9a-f]{8})-([0-9a-f]{4})-(7[0-9a-f]{3})-([0-9a-f]{4})-([0-9a-f]{12})")


class _Headers(msgspec.Struct, frozen=True, gc=False):
    traceparent: str = ""
    tracestate: str = ""
    host: str = ""


class _Traced(msgspec.Struct, frozen=True, gc=False):
    """The fields of an envelope that a trace is derived from."""

    id: str
    trace_id: str
    headers: _Headers
    trace_link: str | None = None


_decode = msgspec.json.Decoder(_Traced).decode


class EventTrace(msgspec.Struct, frozen=True, gc=False):
    """
    The trace of one event.

    :ivar trace_id: 32 hexadecimal digits. ``flags`` and ``tracestate``: of `TraceContext`, for all its spans.
    :ivar harn_trace_id: the event's own ``trace_id``, which all events of a request share.
    :ivar sender: the context of its request; `NO_TRACE` for none.
    :ivar link: the span of the event that this one replays; `NO_TRACE` for none.
    :ivar is_from_request: a request brought it, and has a span of its own.
    """

    trace_id: str
    flags: int
    tracestate: str
    event_id: str
    harn_trace_id: str
    sender: TraceContext = NO_TRACE
    link: TraceContext = NO_TRACE
    is_from_request: bool = False

    @property
    def is_sampled(self) -> bool:
        """Whether its spans are recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def ingest_id(self) -> str:
        """The id of the span of its request."""
        return ingest_id_of(self.harn_trace_id)

    @property
    def accept_id(self) -> str:
        """The id of the span of its acceptance: the parent of each attempt."""
        return span_id_of("accept", self.event_id)


class AttemptTrace(TraceContext, frozen=True, gc=False):
    """
    The context that one run of a handler gets: of the span ``handler``. Each run has its own.

    :ivar event: the trace of its event.
    :ivar dispatch_id: the span that its own is in.
    :ivar began_at: when it began (seconds, Unix).
    """

    event: EventTrace = EventTrace("", 0, "", "", "")
    dispatch_id: str = ""
    began_at: float = 0.0


class Sampler(Struct, frozen=True):
    """
    Decides which traces are recorded: as the sender has decided, or by the trace id, so that all servers agree.

    :ivar name: `ALWAYS_ON`, `ALWAYS_OFF` or `RATIO`, for a trace that begins here, and, unless ``follows_sender``, for
        any other.
    :ivar ratio: the share of them, from 0 to 1.
    """

    name: str = ALWAYS_ON
    ratio: float = 1.0
    follows_sender: bool = True

    def samples(self, trace_id: str, sender: TraceContext = NO_TRACE) -> bool:
        """Return whether a trace is recorded. ``sender``: the context in which it was begun elsewhere."""
        if sender and self.follows_sender:
            return sender.is_sampled
        if self.name != RATIO:
            return self.name == ALWAYS_ON
        if sender:  # as other services decide: by the last eight bytes
            return int(trace_id[16:], 16) < self.ratio * 2.0**64
        # Of an id of our own, the last seven bytes are random.
        return int(trace_id[18:], 16) < self.ratio * 2.0**56


class TraceContexts:
    """
    Makes the contexts of events and of attempts, while traces are on.

    :param random: draws the ids of spans that need not be the same again.
    """

    def __init__(self, sampler: Sampler, random: Random) -> None:
        self._sampler = sampler
        self._random = random

    def of_event(self, envelope: bytes, event_id: str) -> EventTrace:
        """
        Return the trace of an event.

        :param envelope: its encoded envelope; of a damaged one only ``event_id`` is used.
        """
        try:
            traced = _decode(envelope)
        except msgspec.MsgspecError:  # a DecodeError, or a ValidationError
            return self._own(event_id, event_id, "", NO_TRACE)
        if traced.trace_link is not None:
            return self._own(traced.id, traced.trace_id, traced.id, parse_traceparent(traced.trace_link))
        headers = traced.headers
        sender = parse_traceparent(headers.traceparent, headers.tracestate) if headers.traceparent else NO_TRACE
        is_from_request = headers.host != ""
        if not sender:
            own = self._own(traced.id, traced.trace_id, traced.trace_id, NO_TRACE)
            return structs.replace(own, is_from_request=True) if is_from_request else own
        return self._continued(sender, traced.id, traced.trace_id, is_from_request=is_from_request)

    def of_request(self, sender: TraceContext, harn_trace_id: str, *, trusts: bool) -> EventTrace:
        """
        Return the trace of a request of which no event was kept.

        :param harn_trace_id: one that was made for it.
        :param trusts: continue the sender's trace; else that is only linked to, as anyone may name a trace.
        """
        if sender and trusts:
            return self._continued(sender, "", harn_trace_id, is_from_request=True)
        own = self._own("", harn_trace_id, harn_trace_id, sender)
        return structs.replace(own, is_from_request=True)

    def begin(self, envelope: bytes, event_id: str, now: float) -> AttemptTrace:
        """Return the context of an attempt that begins ``now`` (seconds, Unix)."""
        event = self.of_event(envelope, event_id)
        span_id, dispatch_id = self.new_span_id(), self.new_span_id()
        return AttemptTrace(event.trace_id, span_id, event.flags, event.tracestate, event, dispatch_id, now)

    def new_span_id(self) -> str:
        """Return the id of a span that nothing else will ask for again."""
        return f"{self._random.getrandbits(64) or 1:016x}"

    def _continued(
        self, sender: TraceContext, event_id: str, harn_trace_id: str, *, is_from_request: bool
    ) -> EventTrace:
        """Return a trace that a sender began."""
        flags = sender.flags & RANDOM | (SAMPLED if self._sampler.samples(sender.trace_id, sender) else 0)
        return EventTrace(
            sender.trace_id, flags, sender.tracestate, event_id, harn_trace_id, sender, NO_TRACE, is_from_request
        )

    def _own(self, event_id: str, harn_trace_id: str, named: str, link: TraceContext) -> EventTrace:
        """Return a trace that begins here; its id is that of the UUID in ``named``."""
        trace_id, flags = own_trace_id(named or event_id)
        if self._sampler.samples(trace_id):
            flags |= SAMPLED
        return EventTrace(trace_id, flags, "", event_id, harn_trace_id, NO_TRACE, link)


def own_trace_id(named: str) -> tuple[str, int]:
    """
    Return the id of a trace that begins with an event, and its flags.

    :param named: a trace id or an event id of harn's own, which are UUIDs of version 7: their digits are the id, so
        that people find one by the other. Of anything else the id is a digest.
    """
    match = _UUID.fullmatch(named)
    if match is not None:
        return "".join(match.groups()), RANDOM
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(), RANDOM


def span_id_of(name: str, identifier: str) -> str:
    """Return the id of the one span of this name that an event, or a request, has."""
    return blake2b(f"{name} {identifier}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def ingest_id_of(harn_trace_id: str) -> str:
    """Return the id of the span of a request."""
    return span_id_of("ingest", harn_trace_id)


def replayed_envelope(envelope: bytes, event_id: str) -> bytes:
    """
    Return the envelope of a replay: a new event, which names the trace of the one that it repeats.

    :raises msgspec.DecodeError: it is not an envelope.
    """
    old = TraceContexts(Sampler(), Random()).of_event(envelope, "")  # noqa: S311 - no id is drawn
    link = TraceContext(old.trace_id, old.accept_id, old.sender.flags)
    return encode_envelope(structs.replace(decode_envelope(envelope), id=event_id, trace_link=link.traceparent))
