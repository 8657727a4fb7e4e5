"""The suite that every interpreter must pass: what handlers are given, what their results and failures become."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from harn.errors import (
    AttemptFailed,
    CallInterrupted,
    HandlerRaised,
    HandlerRetryAfter,
    HandlerTimedOut,
    PredicateRaised,
    SecretUnavailable,
)
from harn.model.problem import Problem
from harn.model.trace import TraceContext
from harn.testing.calls import FAILING_HOOKS, FAILURES, HANDLERS, HOOKS, RESULTS, SECRETS, make_call, refer
from harn.vm.bundle import Bundle
from harn.vm.calls import run_call
from harn.vm.interfaces import Call, IInterpreter, IInterpreters, ISecrets
from harn.vm.sources import read_bundle

InterpretersFactory = Callable[[ISecrets], Any]
"""Makes an `IInterpreters` that is a service, given the secrets of its handlers."""


@implementer(ISecrets)
class FixedSecrets(Struct, frozen=True):
    """These secrets, by reference, and no others."""

    values: Mapping[str, bytes] = {}

    def read(self, trigger_id: str, reference: str) -> Deferred[bytes]:
        """See `ISecrets.read`."""
        if reference not in self.values:
            return fail(SecretUnavailable(f"no provider has {reference}"))
        return succeed(self.values[reference])


E = TypeVar("E", bound=BaseException)


class InterpreterCase(TestCase):
    """
    A test with interpreters; `start` makes the service that `factory` gives.

    :cvar factory: set by `make_interpreter_tests`, or by a subclass.
    """

    factory: InterpretersFactory

    def setUp(self) -> None:
        """Make and start the service."""
        super().setUp()
        make = type(self).__dict__.get("factory") or self.factory
        self.interpreters = make(FixedSecrets(SECRETS))
        self.interpreters.startService()
        self.addCleanup(self.interpreters.stopService)

    def bundle(self, files: dict[str, str], references: Sequence[str], include: Sequence[str] = ()) -> Bundle:
        """Write files and read the bundle that ``references`` need."""
        root = Path(self.mktemp())
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), "utf-8")
        bundle, problems = read_bundle(root, {}, {refer(each) for each in references}, include)
        self.assertEqual(problems, [])
        return bundle

    def path(self) -> str:
        """Return the absolute path of a file that is not there."""
        return os.path.abspath(str(self.mktemp()))

    def words(self, path: str) -> list[str]:
        """Read the words in a file; none if it is not there."""
        return Path(path).read_text().split() if os.path.exists(path) else []

    async def make(self, source: str = HANDLERS, *functions: str) -> IInterpreter:
        """Return an interpreter of one module, with ``functions`` resolved."""
        references = functions or ("async_one",)
        interpreter: IInterpreter = await self.interpreters.create(self.bundle({"handlers.py": source}, references))
        self.assertEqual(await interpreter.resolve({refer(each) for each in references}), [])
        return interpreter

    async def result(self, interpreter: IInterpreter, call: Call | str | None, **options: Any) -> Any:
        """Run a call, or one that `make_call` makes with ``options``, and decode its result."""
        returned = await run_call(interpreter, call if isinstance(call, Call) else make_call(call, **options))
        return None if returned.result is None else msgspec.json.decode(returned.result)

    async def failure(self, calling: Awaitable[object], *kinds: type[E]) -> E:
        """Return the error that a call ends with, which must be one of ``kinds``."""
        try:
            returned = await calling
        except kinds as error:
            return error
        self.fail(f"{returned} instead of {kinds}")
        raise AssertionError


def make_interpreter_tests(make_interpreters: InterpretersFactory) -> type[InterpreterCase]:
    """
    Make the suite for one kind of interpreters.

    What only a process of its own can do (to die, to be killed) is not in it.
    """

    class InterpreterTests(InterpreterCase):
        factory = staticmethod(make_interpreters)

        async def test_interfaces(self) -> None:
            """The service and what it makes provide their interfaces."""
            interpreter = await self.make()
            verifyObject(IInterpreters, self.interpreters)
            verifyObject(IInterpreter, interpreter)
            self.assertTrue(interpreter.is_up())

        async def test_results(self) -> None:
            """Functions of every shape give their results as JSON."""
            interpreter = await self.make(HANDLERS, *RESULTS)
            for handler, expected in RESULTS.items():
                self.assertEqual(await self.result(interpreter, handler), expected, handler)

        async def test_failures(self) -> None:
            """Each way to fail has its class and its message, and the next call is not affected."""
            interpreter = await self.make(HANDLERS, *FAILURES)
            for handler, (kind, message) in FAILURES.items():
                error = await self.failure(run_call(interpreter, make_call(handler)), AttemptFailed)
                self.assertIs(type(error), kind, handler)
                self.assertRegex(str(error), message)
                if isinstance(error, HandlerRetryAfter):
                    self.assertEqual(error.seconds, None if handler == "retries_some_time" else 90.0)
                if handler == "raises":
                    self.assertIn('raise ValueError("a böse', error.traceback)
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
            self.assertEqual(interpreter.running, 0)

        async def test_last_lines(self) -> None:
            """A failure has the last lines that its handler logged, and no more than are kept."""
            interpreter = await self.make(HANDLERS, "logs_and_raises", "raises")
            error = await self.failure(run_call(interpreter, make_call("logs_and_raises")), HandlerRaised)
            lines = error.output.splitlines()
            self.assertEqual((len(lines), lines[0], lines[-2:]), (50, "line 10", ["line 58", "line 59"]))
            self.assertEqual((await self.failure(run_call(interpreter, make_call("raises")), HandlerRaised)).output, "")

        async def test_event_and_context(self) -> None:
            """A handler sees the whole event, and which attempt it is."""
            interpreter = await self.make()
            seen = await self.result(interpreter, replace(make_call("describe"), attempt=3, replay_of="trigger_evt_0"))
            self.assertEqual((seen["attempt"], seen["replay_of"], seen["binding"]), (3, "trigger_evt_0", "gh@v2"))
            self.assertGreater(seen["deadline"], 1_700_000_000)
            payload = {"provider": "github", "event": "issues", "action": "opened", "raw": {"action": "opened"}}
            self.assertEqual(seen["event"]["provider_payload"], payload)
            self.assertEqual(seen["event"]["dedupe_key"], "d-1")

        async def test_trace(self) -> None:
            """A handler gets the trace context of its attempt; without one, that of its request; else an empty one."""
            interpreter = await self.make()
            new, sent = TraceContext("c" * 32, "d" * 16, 1, "v=1"), TraceContext("a" * 32, "b" * 16).headers()
            seen = await self.result(interpreter, replace(make_call("trace", headers=sent), trace=new))
            self.assertEqual(seen, ["c" * 32, "d" * 16, new.headers(), True])
            self.assertEqual(await self.result(interpreter, "trace", headers=sent), ["a" * 32, "b" * 16, sent, True])
            self.assertEqual(await self.result(interpreter, "trace"), ["", "", {}, False])

        async def test_bodies_pass_intact(self) -> None:
            """A megabyte of every byte, and text of every script, arrive and return as they are."""
            interpreter = await self.make()
            body = bytes(range(256)) * 4096
            self.assertEqual(await self.result(interpreter, "size", body=body), [len(body), sum(body)])
            text = {"ключ": "値 🎉 \u0000 \u2028"}
            self.assertEqual(await self.result(interpreter, "echo", body=msgspec.json.encode(text)), text)

        async def test_predicates(self) -> None:
            """A predicate decides; one that raises, or gives no truth value, fails the attempt as a predicate."""
            interpreter = await self.make()
            self.assertEqual(await self.result(interpreter, "async_one", predicate="yes"), "trigger_evt_1")
            self.assertIsNone((await run_call(interpreter, make_call("exits", predicate="no"))).result)
            self.assertIsNone((await run_call(interpreter, make_call("plain_exits", predicate="no"))).result)
            for predicate, message in (
                ("raises", "ValueError"),
                ("truthy", "must return True or False"),
                ("async_raises", "KeyError"),
            ):
                for handler in ("async_one", "plain_one"):
                    calling = run_call(interpreter, make_call(handler, predicate=predicate))
                    self.assertRegex(str(await self.failure(calling, PredicateRaised)), message)

        async def test_predicates_alone(self) -> None:
            """Without a handler, a predicate's answer is the result, and its failures are what they always are."""
            interpreter = await self.make()
            for predicate, expected in (("yes", b"true"), ("async_yes", b"true"), ("no", None), ("plain_no", None)):
                returned = await run_call(interpreter, make_call(None, predicate=predicate))
                self.assertEqual(returned.result, expected, predicate)
            for predicate, message in (
                ("raises", "ValueError"),
                ("async_raises", "KeyError"),
                ("truthy", "must return True or False, got int"),
                ("rejects", "Reject"),
                ("retries", "RetryAfter"),
                ("exits", "SystemExit"),
            ):
                calling = run_call(interpreter, make_call(None, predicate=predicate))
                self.assertRegex(str(await self.failure(calling, PredicateRaised)), message)
            late = run_call(interpreter, make_call(None, predicate="sleeps", timeout=0.05))
            await self.failure(late, HandlerTimedOut)
            self.assertEqual(await self.result(interpreter, None, predicate="yes"), True)
            self.assertEqual(interpreter.running, 0)
            self.assertRaises(ValueError, make_call, None)

        async def test_cancelling(self) -> None:
            """A call that its caller cancels ends as if its time were up; one beside it is not affected."""
            interpreter = await self.make()
            running = run_call(interpreter, make_call("sleeps"))
            beside = run_call(interpreter, make_call("naps"))
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
            running.cancel()
            await self.failure(running, CancelledError)
            self.assertEqual((await beside).result, b'"rested"')
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
            self.assertTrue(interpreter.is_up())

        async def test_without_the_spare(self) -> None:
            """An interpreter that leaves the spare alone does what others do, and they do not notice it."""
            interpreter = await self.make()
            bundle = self.bundle({"handlers.py": HANDLERS}, ["async_one"])
            beside = await self.interpreters.create(bundle, spare=False)
            self.assertEqual(await beside.resolve({refer("async_one")}), [])
            self.assertEqual(await self.result(beside, "async_one"), "trigger_evt_1")
            await beside.close()
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")

        async def test_timeout(self) -> None:
            """A call that is over its time is cancelled, and says so; one beside it is not affected."""
            interpreter = await self.make()
            late = run_call(interpreter, make_call("sleeps", timeout=0.05))
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
            self.assertEqual(str(await self.failure(late, HandlerTimedOut)), "ran longer than 0.05 s")
            self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")

        async def test_missing_secret(self) -> None:
            """A secret that cannot be had raises ``SecretMissing`` with the reason."""
            interpreter = await self.make()
            self.assertIn("github/none", await self.result(interpreter, "no_secret"))

        async def test_secrets_of_a_trigger(self) -> None:
            """A call whose trigger says which secrets its handler may have gets these and no other."""
            interpreter, call = await self.make(), make_call("secret")
            allowed = ("github/other", "github/token")
            self.assertEqual(await self.result(interpreter, replace(call, secrets=allowed)), "gehéim")
            for few, named in (((), "none"), (("github/other",), "github/other")):
                error = await self.failure(run_call(interpreter, replace(call, secrets=few)), HandlerRaised)
                self.assertRegex(str(error), f"github/token is not among the handler_secrets of trigger gh.* {named}$")

        async def test_flaws(self) -> None:
            """What cannot be used is a problem with its place and advice; the rest is not affected."""
            names = ["asinc_one", "not_callable", "three", "none_at_all"]
            interpreter = await self.interpreters.create(self.bundle({"handlers.py": HANDLERS}, names))
            problems = await interpreter.resolve({refer(each) for each in [*names, "async_one"]})
            found = {problem.where: problem for problem in problems}
            self.assertEqual(set(found), {f"handlers:{each}" for each in names})
            self.assertIn("did you mean 'async_one'", str(found["handlers:asinc_one"]))
            self.assertRegex(str(found["handlers:three"]), r"handlers\.py:\d+: .*cannot be called with an event")
            self.assertIsInstance(problems[0], Problem)

        async def test_failing_imports(self) -> None:
            """A module that cannot be imported is a problem with file and line of the user's own code."""
            files = {
                "raising.py": "\n\nimport deep\n",
                "deep.py": "x = 1\nraise RuntimeError('at import')\n",
                "missing.py": "import sys\nimport no_such_package\n",
                "leaving.py": "import sys\nsys.exit(3)\n",
                "fine.py": "def f(event): return 1\n",
            }
            names = [f"{name.removesuffix('.py')}:f" for name in files if name != "deep.py"]
            interpreter = await self.interpreters.create(self.bundle(files, names))
            problems = {problem.where: problem for problem in await interpreter.resolve({refer(n) for n in names})}
            self.assertEqual(set(problems), {"raising:f", "missing:f", "leaving:f"})
            self.assertRegex(str(problems["raising:f"]), r"deep\.py:2: .*RuntimeError: at import")
            self.assertRegex(str(problems["missing:f"]), r"missing\.py:2: .*no_such_package.*install it")
            self.assertRegex(str(problems["leaving:f"]), r"leaving\.py:2: .*SystemExit: 3")

        async def test_generations_do_not_meet(self) -> None:
            """Two interpreters with modules of the same names each run their own code, however it imports it."""
            files = {
                "handlers.py": """
                    import importlib
                    import pack.inner as inner
                    from dataclasses import dataclass
                    from pack import VALUE
                    @dataclass
                    class Result:
                        value: "int"
                    def f(event):
                        from pack.late import late
                        import pack
                        dynamic = importlib.import_module("rules.one")
                        return [inner.value, VALUE, late(), pack.inner.value, dynamic.value, Result(1).value]
                """,
                "pack/__init__.py": "VALUE = {0}\n",
                "pack/inner.py": "from . import VALUE\nvalue = VALUE\n",
                "pack/late.py": "def late():\n    from .inner import value\n    return value\n",
                "rules/one.py": "value = {0}\n",
            }
            before = set(sys.modules)
            made = []
            for value in ("1", "2"):
                bundle = self.bundle(
                    {name: dedent(text).replace("{0}", value) for name, text in files.items()},
                    ["f"],
                    ["rules/*.py"],
                )
                interpreter = await self.interpreters.create(bundle)
                self.assertEqual(await interpreter.resolve({refer("f")}), [])
                made.append(interpreter)
            for number, interpreter in enumerate(made, 1):
                self.assertEqual(await self.result(interpreter, "f"), [*[number] * 5, 1])
            for interpreter in made:
                await interpreter.close()
            self.assertEqual(
                {name for name in set(sys.modules) - before if "handlers" in name or "pack" in name}, set()
            )

        async def test_close(self) -> None:
            """Closing interrupts what runs, refuses what comes, and may be asked for twice."""
            interpreter = await self.make()
            running = run_call(interpreter, make_call("sleeps"))
            closing = interpreter.close()
            error = await self.failure(running, CallInterrupted)
            self.assertIsInstance(error, CallInterrupted)
            self.assertFalse(getattr(error, "suspect", True))
            await closing
            await interpreter.close()
            await self.failure(run_call(interpreter, make_call("async_one")), CallInterrupted)
            self.assertFalse(interpreter.is_up())
            self.assertEqual(interpreter.running, 0)

        async def test_hooks(self) -> None:
            """They run once, in order, in an interpreter that serves, before its calls and before its end."""
            path = self.path()
            source = HOOKS.format(path=path)

            candidate = await self.make(source, "call")
            self.assertEqual(await self.result(candidate, None, predicate="yes"), True)
            await candidate.close()
            self.assertEqual(self.words(path), [])
            interpreter = await self.make(source, "call")
            first, call = interpreter.serve(), run_call(interpreter, make_call("call"))
            self.assertEqual(await first, ())
            await call
            self.assertEqual(await interpreter.serve(), ())
            self.assertEqual(self.words(path), ["plain", "async", "call"])
            await interpreter.close()
            self.assertEqual(self.words(path), ["plain", "async", "call", "last", "first"])

        async def test_hooks_without_a_word(self) -> None:
            """Without `serve`, start hooks run before the first call of a handler."""
            path = self.path()
            interpreter = await self.make(HOOKS.format(path=path), "call")
            await self.result(interpreter, "call")
            self.assertEqual(self.words(path), ["plain", "async", "call"])

        async def test_failing_hooks(self) -> None:
            """A failure names its place, and the other hooks and the handlers run all the same."""
            interpreter = await self.make(FAILING_HOOKS, "call")
            failures = await interpreter.serve()
            self.assertEqual(interpreter.hook_failures, failures)
            self.assertEqual(len(failures), 2, failures)
            self.assertRegex(
                failures[0], r"^on_start handlers:raises failed: OSError: in use \(.*handlers.py:8\); handlers"
            )
            self.assertRegex(failures[1], r"^on_start handlers:leaves failed: SystemExit: 3")
            self.assertEqual(await self.result(interpreter, "call"), ["ran"])
            await interpreter.close()
            self.assertEqual(len(self.flushLoggedErrors()), 0)

        async def test_many_at_once(self) -> None:
            """A thousand calls in flight all return."""
            interpreter = await self.make()
            calls = [run_call(interpreter, make_call("plain_one" if n % 4 == 0 else "async_one")) for n in range(1000)]
            self.assertEqual({(await each).result for each in calls}, {b'"trigger_evt_1"'})

    return InterpreterTests
