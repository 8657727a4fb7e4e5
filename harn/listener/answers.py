"""The responses to requests whose events are on disk: the usual one, that of several triggers, that of a handler."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.connectors.interfaces import Events, Respond
from harn.dispatch.decisions import Decided
from harn.dispatch.intake import Taken
from harn.lifecycle import Settled
from harn.listener.request import JSON
from harn.model.delivery import Settlement, State
from harn.model.response import Response, read_response
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Route

_encode = msgspec.json.Encoder().encode
_ACCEPTED = b'{"status":"accepted","event_id":"%s",%s'
_ONE = b'{"status":"%s","trigger_id":%s}'
_SEVERAL = (
    b'{"status":"accepted","events_accepted":%d,"duplicates_dropped":%d,"ignored":%d,"event_ids":%s,"trigger_id":%s}'
)
_ENDED = frozenset((State.DONE, State.SKIPPED, State.DEAD))
_ACCEPTED_STATUS = 202


class Ended(msgspec.Struct, frozen=True, gc=False):
    """
    The result for a request that waited for its delivery.

    :ivar in_time: whether the delivery ended in time, and not as a dead letter.
    :ivar answer: the answer of the handler; None if it returned none.
    """

    in_time: bool
    answer: Response | None = None


class Expected:
    """The wait of one request for the end of its delivery."""

    def __init__(self, answers: Answers, event_id: str, within: float) -> None:
        self.event_id = event_id
        self._within = within
        self._answers = answers
        self._ended: Deferred[Ended] = Deferred()
        self._timer: IDelayedCall | None = None

    def wait(self, clock: IReactorTime) -> Deferred[Ended]:
        """Return a Deferred that fires when the delivery has ended, or when the time to wait has passed."""
        if not self._ended.called:
            self._timer = clock.callLater(self._within, self._time_over)
        return self._ended

    def end(self, settlement: Settlement | None) -> None:
        """Called when the delivery has ended; with None, when it will not begin."""
        if self._timer is not None:
            self._timer.cancel()
        done = settlement is not None and settlement.state is not State.DEAD
        result = None if settlement is None else settlement.result
        self._finish(Ended(done, None if result is None else read_response(result)))

    def _time_over(self) -> None:
        self._finish(Ended(False))

    def _finish(self, ended: Ended) -> None:
        self._timer = None
        self._answers.remove(self.event_id)
        if not self._ended.called:
            self._ended.callback(ended)


class Answers:
    """
    The requests whose responses come from handlers, by the id of the event.

    A retry does not end the wait; only the final outcome of the delivery does.
    """

    def __init__(self) -> None:
        self._expected: dict[str, Expected] = {}

    def expect_one(self, decisions: Iterable[Decided]) -> Expected | None:
        """
        Wait for the end of the first delivery whose handler determines the response. Called before it is accepted.

        :return: None if there is no such delivery. If it is not accepted, the caller must call `Expected.end`.
        """
        for decided in decisions:
            for new, holder in zip(decided.deliveries, decided.holders, strict=True):
                respond = holder.spec.respond
                if respond is not None and respond.by_handler and new.dead is None:
                    expected = Expected(self, new.event_id, holder.spec.respond_within)
                    self._expected[new.event_id] = expected
                    return expected
        return None

    def remove(self, event_id: str) -> None:
        """Stop waiting for the end of a delivery."""
        self._expected.pop(event_id, None)

    def settled(self, event: Settled) -> None:
        """Called with the outcomes of attempts."""
        if not self._expected:
            return
        for each in event.deliveries:
            expected = self._expected.get(each.event_id)
            if expected is not None and each.settlement.state in _ENDED:
                expected.end(each.settlement)


Answer = tuple[int, bytes, bytes, bytes]
"""A response: status code, content, content type, and further field lines, each of which ends in CRLF."""


def usual_answer(taken: Taken, normalized: Events | Respond, trigger_id: str) -> Answer:
    """Return the response to a request for one trigger: the connector's, if it gave one, else the usual one."""
    if type(normalized) is not Events and isinstance(normalized, Respond):
        return normalized.status, normalized.body, _header_value(normalized.content_type), b""
    if len(normalized.events) > 1:
        ids, encoded = _encode(taken.event_ids), _encode(trigger_id)
        body = _SEVERAL % (len(taken.event_ids), taken.duplicates, taken.ignored, ids, encoded)
    elif taken.event_ids:
        body = _ACCEPTED % (taken.event_ids[0].encode("ascii"), _after_id(trigger_id, taken.bindings[0]))
    else:
        body = _ONE % (b"duplicate_dropped" if taken.duplicates else b"ignored", _encode(trigger_id))
    return 200, body, JSON, b""


@lru_cache(maxsize=16_384)
def _after_id(trigger_id: str, binding: str) -> bytes:
    """
    Return the text after the event's id in the response for an accepted event. It depends on the binding version alone.
    """
    return b'"trigger_id":%s,"binding":%s}' % (_encode(trigger_id), _encode(binding))


def shared_answer(trigger_ids: Sequence[str], taken: Sequence[Taken]) -> Answer:
    """Return the response to a request for several triggers, which lists the result of each."""
    accepted = [
        {"trigger_id": trigger_id, "event_id": event_id, "binding": binding}
        for trigger_id, each in zip(trigger_ids, taken, strict=True)
        for event_id, binding in zip(each.event_ids, each.bindings, strict=True)
    ]
    ignored = [trigger_id for trigger_id, each in zip(trigger_ids, taken, strict=True) if each.ignored]
    duplicates = [trigger_id for trigger_id, each in zip(trigger_ids, taken, strict=True) if each.duplicates]
    status = "accepted" if accepted else "duplicate_dropped" if duplicates else "ignored"
    answer = {"status": status, "accepted": accepted, "ignored": ignored, "duplicates": duplicates}
    return 200, _encode(answer), JSON, b""


def fixed_answer(
    members: Sequence[Route], reached: Collection[BindingVersion], normalized: Events | Respond, usual: Answer
) -> Answer:
    """
    Return the response that a trigger's ``respond`` sets for all events; without one, the usual response.

    :param reached: the versions chosen on ramps: the newest chosen version of a trigger determines its ``respond``.
    """
    if not normalized.events:
        return usual  # a handshake, which the connector answers
    return always_answer(members, reached) or usual


def always_answer(members: Sequence[Route], reached: Collection[BindingVersion]) -> Answer | None:
    """Return the response that a trigger's ``respond`` sets for all events, or None; see `fixed_answer`."""
    for member in members:
        own = [] if member.ramp is None else [version for version in reached if version.id == member.binding.id]
        respond = max(own, key=lambda version: version.version, default=member.binding).spec.respond
        if respond is not None and not respond.by_handler:
            return respond.status, respond.body.encode("utf-8"), _header_value(respond.content_type), b""
    return None


def duplicate_answer(members: Sequence[Route]) -> Answer:
    """Return the response to a request whose signature or token was used before: a duplicate for each trigger."""
    ids = [member.binding.id for member in members]
    repeated = Taken((), 1, 0)
    usual = usual_answer(repeated, Events(()), ids[0]) if len(ids) == 1 else shared_answer(ids, [repeated] * len(ids))
    return always_answer(members, ()) or usual


def handler_answer(ended: Ended, normalized: Events | Respond, usual: Answer) -> Answer:
    """
    Return the handler's response.

    If it has none, this is the usual response, with the status 202 if the delivery continues or has failed. A response
    that the connector gave keeps its status, since the sender accepts no other.
    """
    answer = ended.answer
    if answer is not None:
        lines = b"".join(
            b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers.items()
            if name.lower() != "content-type"
        )
        return answer.status, answer.content(), _header_value(answer.content_type), lines
    if ended.in_time or isinstance(normalized, Respond):
        return usual
    return (_ACCEPTED_STATUS, *usual[1:])


def _header_value(text: str) -> bytes:
    """Return a content type in a form that is safe in a header."""
    return text.encode("latin-1", "replace").translate(None, b"\r\n\x00")
