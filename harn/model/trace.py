"""
The W3C trace context: what a request's ``traceparent`` and ``tracestate`` say, and what is passed on to the next hop.

What a sender writes is checked by the standard's grammar; what does not fit it counts as absent.

Source: W3C, "Trace Context" level 2, https://www.w3.org/TR/trace-context-2/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from harn.model.event import TriggerEvent

SAMPLED = 0x01
"""The flag of a trace that is recorded."""
RANDOM = 0x02
"""The flag of a trace id whose last seven bytes are random (level 2)."""

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

# Compiled at first use, by `re` itself: interpreters import this when they start, and most see no trace.
_TRACEPARENT = r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
_MEMBER = r"([a-z0-9][a-z0-9_\-*/@]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
MOST_MEMBERS = 32
LONGEST_STATE = 512
"""Characters of a ``tracestate`` that are passed on; the standard asks for so many at least (3.3.1.5)."""
LONGEST_MEMBER = 128
"""Characters of an entry above which it is the first to be left out of one that is too long."""


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """
    A place in a trace: the span that work belongs to, wherever it runs. One without a trace is false.

    :ivar trace_id: 32 lower-case hexadecimal digits, as in ``traceparent``; empty for none.
    :ivar span_id: 16 of them: the parent of the next span.
    :ivar flags: `SAMPLED` and `RANDOM`.
    :ivar tracestate: the entries of the vendors, as the sender wrote them; empty for none.
    """

    trace_id: str = ""
    span_id: str = ""
    flags: int = 0
    tracestate: str = ""

    def __bool__(self) -> bool:
        return self.trace_id != ""

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header ``traceparent`` for the next hop; empty for none."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}" if self.trace_id else ""

    @property
    def text(self) -> str:
        """All of it as one text, which `trace_of` reads; empty for none."""
        return f"{self.traceparent} {self.tracestate}" if self.trace_id else ""

    def headers(self) -> dict[str, str]:
        """Return the headers that a request to the next service needs; none where there is no trace."""
        if not self.trace_id:
            return {}
        headers = {TRACEPARENT: self.traceparent}
        if self.tracestate:
            headers[TRACESTATE] = self.tracestate
        return headers


NO_TRACE = TraceContext()


def parse_traceparent(text: str, tracestate: str = "") -> TraceContext:
    """
    Return the context of a ``traceparent``, or `NO_TRACE` if it is not one.

    A later version is read as far as version 00 goes, as the standard asks for (2.2, 3.2.4). Of the flags, those
    that are known are kept.
    """
    match = re.fullmatch(_TRACEPARENT, text, re.DOTALL)
    if match is None:
        return NO_TRACE
    version, trace_id, span_id, flags, more = match.groups()
    if (more is not None and version == "00") or not trace_id.strip("0") or not span_id.strip("0"):
        return NO_TRACE
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM), parse_tracestate(tracestate))


def parse_tracestate(text: str) -> str:
    """
    Return a ``tracestate`` as it is passed on; empty if it breaks the grammar, names a key twice, or has too many.

    One that is too long loses its long entries first, then the last ones (3.3.1.5).
    """
    members: dict[str, str] = {}
    for each in text.split(","):
        member = each.strip(" \t")
        if not member:
            continue
        match = re.fullmatch(_MEMBER, member)
        if match is None or match[1] in members or len(members) == MOST_MEMBERS:
            return ""
        members[match[1]] = member
    kept = list(members.values())
    if _length(kept) > LONGEST_STATE:
        kept = [each for each in kept if len(each) <= LONGEST_MEMBER]
    while _length(kept) > LONGEST_STATE:
        kept.pop()
    return ",".join(kept)


def _length(members: list[str]) -> int:
    return sum(map(len, members)) + len(members) - 1


def context_of(headers: Mapping[str, str]) -> TraceContext:
    """
    Return the context that a request's headers carry, or `NO_TRACE`.

    :param headers: names in lower case, the values of a repeated one joined by commas.
    """
    traceparent = headers.get(TRACEPARENT)
    return NO_TRACE if traceparent is None else parse_traceparent(traceparent, headers.get(TRACESTATE, ""))


def trace_of(text: str) -> TraceContext:
    """Read a `TraceContext.text`; return `NO_TRACE` for an empty one."""
    traceparent, _, tracestate = text.partition(" ")
    return parse_traceparent(traceparent, tracestate)


def passed_on(event: TriggerEvent) -> TraceContext:
    """
    Return the context that a handler of this event passes on while traces are off: as its request brought it.

    For a replay it is empty: its headers describe an old request.
    """
    return context_of(event.headers) if event.trace_link is None else NO_TRACE


def handler_trace(text: str, event: TriggerEvent) -> TraceContext:
    """Return the context of an attempt; ``text``: that of the server, empty while traces are off."""
    return trace_of(text) if text else passed_on(event)
