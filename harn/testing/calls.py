"""Example handlers, the result or error of each, and calls of them: material for tests of interpreters."""

from __future__ import annotations

from collections.abc import Mapping

from harn.errors import AttemptFailed, HandlerRaised, HandlerRejected, HandlerRetryAfter, ResultInvalid, ResultTooLarge
from harn.model.event import Envelope, encode_envelope
from harn.model.references import FunctionReference, parse_function_reference
from harn.vm.interfaces import Call

SECRETS = {"github/token": "gehéim".encode()}

HANDLERS = """
    import asyncio
    import logging
    import sys

    import msgspec
    from harn.handlers import Context, Reject, RetryAfter, SecretMissing, TriggerEvent

    async def async_one(event): return event.id
    async def async_two(event, context): return [event.kind, context.trigger_id]
    def plain_one(event): return event.id
    def plain_two(event, context=None): return [event.kind, context.trigger_id]
    def gives_coroutine(event): return async_one(event)
    class Callable:
        async def __call__(self, event, context): return "called " + context.binding
    an_object = Callable()
    async def nothing(event): pass

    async def describe(event, context):
        assert isinstance(event, TriggerEvent) and isinstance(context, Context)
        return {"event": event.to_dict(), "attempt": context.attempt, "replay_of": context.replay_of,
                "binding": context.binding, "deadline": context.deadline}
    async def trace(event, context):
        return [context.trace.trace_id, context.trace.span_id, context.trace.headers(), bool(context.trace)]
    def size(event): return [len(event.raw_body), sum(event.raw_body)]
    def echo(event): return event.provider_payload["raw"]

    def yes(event): return True
    async def async_yes(event): return True
    async def no(event): return False
    def plain_no(event): return False
    def raises(event): raise ValueError("a böse \\ud800 message")
    async def async_raises(event): raise KeyError("k")
    def truthy(event): return 1
    async def rejects(event): raise Reject("not for this handler")
    def retries(event): raise RetryAfter(90, "busy")
    def retries_wrongly(event): raise RetryAfter(-1)
    def retries_some_time(event): raise RetryAfter(None)
    def retries_by_header(event): raise RetryAfter("90")
    async def exits(event): sys.exit(4)
    def plain_exits(event): sys.exit(4)
    async def interrupts(event): raise KeyboardInterrupt
    async def cancels_itself(event): raise asyncio.CancelledError
    async def exits_in_task(event):
        async def inner(): sys.exit(5)
        task = asyncio.ensure_future(inner())
        await asyncio.wait([task])
        assert isinstance(task.exception(), SystemExit)
        return "lived"
    class Unprintable(Exception):
        def __str__(self): raise RuntimeError
    def unprintable(event): raise Unprintable

    def gives_object(event): return object()
    def gives_nan(event): return {"a": [1.0, float("nan")], "b": None}
    def gives_cycle(event):
        cycle = []
        cycle.append(cycle)
        return cycle
    def gives_surrogate(event): return "\\ud800"
    def gives_raw(event): return {"a": msgspec.Raw(b"{not json")}
    def gives_raw_nan(event): return msgspec.Raw(b"NaN")
    def gives_tuple_keys(event): return {(1, 2): 3}
    def gives_depth(event):
        depth = []
        for _ in range(200_000): depth = [depth]
        return depth
    class Later(RetryAfter):
        def __init__(self): pass
    def retries_without_time(event): raise Later
    class Nameless(Reject):
        def __str__(self): raise RuntimeError
    def rejects_without_words(event): raise Nameless
    def logs_records(event):
        log = logging.getLogger("shop.orders")
        log.debug("unseen")
        log.info("paid %d of %s", 3, "EUR", extra={"order": "o-1"})
        log.critical("stop\\nnow")
        log.warning("%d", "no number")
        try:
            raise KeyError("amount")
        except KeyError:
            log.exception("lost")
        return "ok"
    async def leaks(event, context):
        token = await context.secret("github/token")
        context.log.info("sent " + token, url="https://x?token=" + token)
        print(token)
        raise ValueError("401 for https://x?token=" + token)
    def logs_raw(event, context):
        context.log.info("logged", raw=msgspec.Raw(b"{not json"))
        return "ok"
    async def gives_much(event): return "x" * (1 << 20)

    async def sleeps(event): await asyncio.sleep(60)
    async def naps(event):
        await asyncio.sleep(0.2)
        return "rested"
    async def secret(event, context): return await context.secret("github/token")
    async def no_secret(event, context):
        try:
            return await context.secret("github/none")
        except SecretMissing as error:
            return str(error)
    async def logs(event, context):
        context.log.info("note", number=1, thing=object())
        print("printed")
        return "ok"
    def logs_and_raises(event, context):
        for number in range(60):
            context.log.info(f"line {number}")
        raise ValueError("no")
    not_callable = 5
    def three(a, b, c): pass
    def none_at_all(): pass
"""

RESULTS = {
    "async_one": "trigger_evt_1",
    "async_two": ["issues.opened", "gh"],
    "plain_one": "trigger_evt_1",
    "plain_two": ["issues.opened", "gh"],
    "gives_coroutine": "trigger_evt_1",
    "an_object": "called gh@v2",
    "nothing": None,
    "secret": "gehéim",
    "logs": "ok",
    "logs_raw": "ok",
    "exits_in_task": "lived",
}

FAILURES: dict[str, tuple[type[AttemptFailed], str]] = {
    "raises": (HandlerRaised, r"^ValueError: a böse \\ud800 message$"),
    "async_raises": (HandlerRaised, "^KeyError: 'k'$"),
    "exits": (HandlerRaised, "^SystemExit: 4$"),
    "plain_exits": (HandlerRaised, "^SystemExit: 4$"),
    "interrupts": (HandlerRaised, "^KeyboardInterrupt$"),
    "cancels_itself": (HandlerRaised, "^CancelledError$"),
    "unprintable": (HandlerRaised, "^Unprintable: "),
    "retries_wrongly": (HandlerRaised, "^ValueError: .*seconds must be a finite number"),
    "rejects": (HandlerRejected, "^not for this handler$"),
    "retries": (HandlerRetryAfter, "^busy$"),
    "retries_some_time": (HandlerRetryAfter, "^asked to be retried$"),
    "retries_by_header": (HandlerRetryAfter, "^asked to be retried after 90 s$"),
    "gives_object": (ResultInvalid, "not JSON"),
    "gives_nan": (ResultInvalid, "NaN"),
    "gives_cycle": (ResultInvalid, "not JSON"),
    "gives_surrogate": (ResultInvalid, "not JSON"),
    "gives_raw": (ResultInvalid, "not JSON"),
    "gives_raw_nan": (ResultInvalid, "not JSON"),
    "gives_tuple_keys": (ResultInvalid, "not JSON"),
    "gives_depth": (ResultInvalid, "not JSON"),
    "retries_without_time": (HandlerRaised, "^Later$"),
    "rejects_without_words": (HandlerRejected, "cannot be shown"),
    "gives_much": (ResultTooLarge, "got 1048578"),
}


def make_call(
    handler: str | None,
    *,
    predicate: str | None = None,
    body: bytes = b'{"action": "opened"}',
    timeout: float = 30.0,
    headers: Mapping[str, str] = {},
) -> Call:
    """
    Make a first call of trigger ``gh``; `msgspec.structs.replace` makes others of it.

    :param handler: a plain name is a function of module ``handlers``, as is ``predicate``; None: no handler at all.
    :param headers: of the event, beside its own.
    """
    envelope = Envelope(
        id="trigger_evt_1",
        provider="github",
        kind="issues.opened",
        received_at="2026-01-02T03:04:05.678Z",
        dedupe_key="d-1",
        trace_id="trace_1",
        headers={"x-github-event": "issues", **headers},
        signature_status={"state": "verified"},
        payload={"event": "issues"},
        lifted={"action": ["action"]},
        body_format="json",
    )
    return Call(
        binding="gh@v2",
        trigger_id="gh",
        event_id=envelope.id,
        handler=None if handler is None else str(refer(handler)),
        predicate=None if predicate is None else str(refer(predicate)),
        envelope=encode_envelope(envelope),
        body=body,
        attempt=1,
        timeout=timeout,
    )


HOOKS = """
from harn.handlers import on_start, on_stop
import asyncio

def say(word):
    with open({path!r}, "a") as file:
        file.write(word + "\\n")

@on_stop
def first():
    say("first")

@on_start
def plain():
    say("plain")

@on_start
async def begin():
    await asyncio.sleep(0.01)
    say("async")

@on_stop
async def last():
    say("last")

def yes(event):
    return True

def call(event):
    say("call")
"""
"""Hooks that write their names to ``path`` (to be filled in) when they run."""

FAILING_HOOKS = """
from harn.handlers import on_start, on_stop

ran = []

@on_start
def raises():
    raise OSError("in use")

@on_start
async def leaves():
    raise SystemExit(3)

@on_start
def works():
    ran.append("ran")

@on_stop
def fails():
    1 / 0

def call(event):
    return ran
"""


def refer(text: str) -> FunctionReference:
    """Read a reference; a plain name is a function of module ``handlers``."""
    return parse_function_reference(text if ":" in text else f"handlers:{text}")
