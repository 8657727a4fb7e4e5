"""Parsing by parts, here or in a child process: always what parsing whole gives."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import ManifestInvalid, StageFailed
from harn.manifest.document import (
    HEADER,
    Malformed,
    cut,
    decode_parsed,
    decode_value,
    parse,
    parse_head,
    parse_part,
    parse_to_frame,
    parse_whole,
)
from harn.manifest.parsing_process import parse_in_child
from harn.testing.manifests import manifest_text
from tests.manifest.rules import UNHURRIED, load

NASTY_LINES = [
    "[[triggers]]",
    "[[triggers]] # note",
    "[[triggers]]x",
    " [[triggers]]",
    '[["triggers"]]',
    "[[ triggers ]]",
    "[triggers]",
    "[triggers.retry]",
    "[[triggers.sources]]",
    "[triggers.a.b]",
    "[orchestrator]",
    "[orchestrator.drain]",
    "triggers = []",
    "triggers = [{}]",
    "triggers.x = 1",
    "x = '''",
    'x = """',
    "'''",
    '"""',
    "x = [",
    "]",
    "x = { a = 1,",
    "}",
    "# '''",
    '# """ [[triggers]]',
    "id = 'a'",
    'id = "é\\u00e9"',
    "a.b = 1",
    "a.c = 2",
    "max = 1",
    "max = 1 # one",
    'y = "\\',
    "d = 1979-05-27T07:32:00Z",
    "",
    "\r",
    "\t",
    "é",
    "=",
]
PIECES = st.lists(st.sampled_from(NASTY_LINES), max_size=14)
VALID = (
    'x = 1\n[orchestrator]\nallow_empty = true\n[[triggers]]\nid = "a"\nnote = """\n[[triggers]]\nid = 1\n"""\n'
    "[triggers.retry]\nmax = 3\n[[triggers.sources]]\nkind = 'x'\n[[triggers]]\nid = '''\n[[triggers]]'''\n"
    'list = [\n"a", # [[triggers]]\n"b"]\n\n[[triggers]]\nid = "ü"\nt = { a = 1, b.c = "]]" }\n'
)


class PartsTests(SynchronousTestCase):
    """`parse` against `parse_whole`."""

    def check(self, text: str) -> None:
        """Assert that both ways give the same values, or both refuse the text for the same reason."""
        by_parts, whole = parse(text), parse_whole(text)
        if isinstance(whole, Malformed) or isinstance(by_parts, Malformed):
            self.assertEqual(by_parts, whole)
        else:
            self.assertEqual((by_parts.head, by_parts.triggers), (whole.head, whole.triggers))

    @UNHURRIED
    @given(PIECES, st.sampled_from(["", "\n"]))
    @example(["x = '''", "[[triggers]]", "'''"], "")
    @example(["[[triggers]]", "x = [", "[[triggers]]", "]"], "\n")
    @example(["[[triggers]]", "[orchestrator]", "[[triggers]]", "[orchestrator.drain]"], "\n")
    @example(["[triggers]", "[[triggers]]"], "\n")
    @example(["triggers.x = 1", "[[triggers]]"], "\n")
    @example(["[[triggers]]", "\r"], "")
    def test_any_lines(self, lines: list[str], end: str) -> None:
        """Lines that try to hide a cut from the parser, or the parser from a cut, do not tell the two ways apart."""
        self.check("\n".join(lines) + end)

    @UNHURRIED
    @given(st.integers(0, len(VALID)))
    def test_truncated(self, length: int) -> None:
        """A manifest that is cut off anywhere parses the same either way, or is refused the same."""
        self.check(VALID[:length])

    @UNHURRIED
    @given(st.text(alphabet="[]triges\"'#=.\n\\ x1{},", max_size=60))
    def test_any_text(self, text: str) -> None:
        """So does any text of TOML's own characters."""
        self.check(text)

    def test_usual_manifest_is_parsed_by_parts(self) -> None:
        """A manifest of ordinary triggers, with sub-tables and comments, needs no whole parse."""
        parsed = parse(manifest_text(3) + "# end\n")
        assert not isinstance(parsed, Malformed)
        self.assertTrue(parsed.by_parts)
        self.assertEqual([trigger["id"] for trigger in parsed.triggers], ["t0", "t1", "t2"])

    def test_what_cannot_be_cut(self) -> None:
        """A header in a string, tables after the triggers and inline triggers are parsed whole."""
        for text in (
            '[[triggers]]\nx = """\n[[triggers]]\n"""\n',
            "[[triggers]]\nid = 1\n[orchestrator]\n",
            "triggers = [{ id = 1 }]\n",
            "[[triggers]]\n[[ triggers ]]\n",
        ):
            parsed = parse(text)
            assert not isinstance(parsed, Malformed)
            self.assertFalse(parsed.by_parts, text)

    def test_pieces_make_the_text_again(self) -> None:
        """Nothing is lost by cutting."""
        pieces = cut(VALID)
        self.assertEqual(("\n" + HEADER).join([pieces.lead, *pieces.parts]), "\n" + VALID)

    def test_pieces_that_are_not_whole(self) -> None:
        """A head that speaks of triggers, and a part that is more or less than one trigger, say so."""
        self.assertIsNone(parse_head("[triggers]\n"))
        self.assertIsNone(parse_head("x ="))
        self.assertIsNone(parse_part("\nx = '''\n"))
        self.assertIsNone(parse_part("\n[other]\n"))
        self.assertEqual(parse_part("\nid = 1\n[triggers.retry]\nmax = 2"), {"id": 1, "retry": {"max": 2}})

    def test_deep_nesting_is_no_crash(self) -> None:
        """Brackets without end are refused like any malformed text."""
        self.assertIsInstance(parse("x = " + "[" * 5000), Malformed)


TRIGGERS = st.builds(
    lambda identity, limit, note: (
        f'[[triggers]]\nid = "t{identity}"\nkind = "webhook"\nprovider = "github"\nhandler = "f"\n'
        f'match = {{ events = [] }}\nsecrets = {{ signing_secret = "github/s" }}\n{note}'
        f"[triggers.retry]\nmax = {limit}\n"
    ),
    st.integers(0, 4),
    st.integers(99, 101),
    st.sampled_from(["", "# '''\n", 'when = """\nm:f"""\n', 'filter = """event\n[[triggers]]\n"""\n', "# é\n\n"]),
)
MANIFESTS = st.builds(
    lambda head, triggers, tail, newline: (head + "".join(triggers) + tail).replace("\n", newline),
    st.sampled_from(["", "[orchestrator]\nallow_empty = true\n", "[package]\nname = 'x'\n", "oops = 1\n", "x = '\n"]),
    st.lists(TRIGGERS, max_size=4),
    st.sampled_from(["", "[exports]\nm = 'm.py'\n", "[triggers.match]\n", "'''"]),
    st.sampled_from(["\n", "\r\n"]),
)


class ReuseTests(SynchronousTestCase):
    """Loading with a previous manifest."""

    @UNHURRIED
    @given(MANIFESTS, MANIFESTS)
    def test_what_went_before_makes_no_difference(self, old: str, new: str) -> None:
        """After any earlier manifest a text loads to what it loads to on its own, or has the same problems."""
        try:
            previous = load(old)
        except ManifestInvalid:
            previous = None
        try:
            alone = load(new)
        except ManifestInvalid as error:
            again = self.assertRaises(ManifestInvalid, load, new, previous)
            self.assertEqual((again.stage, again.problems), (error.stage, error.problems))
        else:
            self.assertEqual(load(new, previous).manifest, alone.manifest)


class AnswerTests(SynchronousTestCase):
    """`parse_to_frame` and `decode_parsed`."""

    def check(self, text: str) -> None:
        """Assert that the answer has the same values as the parser here."""
        parsed, answered = parse(text), decode_parsed(parse_to_frame(text.encode("utf-8")))
        if isinstance(parsed, Malformed):
            self.assertEqual(answered.malformed, parsed)
            return
        self.assertIsNone(answered.malformed)
        self.assertEqual(answered.by_parts, parsed.by_parts)
        self.assertEqual(decode_value(answered.head), parsed.head)
        self.assertEqual([decode_value(one) for one in answered.triggers], parsed.triggers)

    @UNHURRIED
    @given(PIECES)
    @example(VALID.split("\n"))
    @example(NASTY_LINES[:1] * 3)
    def test_crossing_changes_nothing(self, lines: list[str]) -> None:
        """Values and errors come out of the answer as the parser made them."""
        self.check("\n".join(lines))

    def test_values_that_json_has_not(self) -> None:
        """Moments of every kind, huge integers and infinities cross unchanged."""
        text = (
            "[[triggers]]\na = 1979-05-27T07:32:00.5-07:00\nb = 1979-05-27T07:32:00\nc = 1979-05-27\nd = 07:32\n"
            f"e = {2**80}\nf = {-(2**80)}\ng = -inf\nh = [1979-05-27, {{ i = 07:32:00 }}]\n"
        )
        self.check(text)
        trigger = decode_value(decode_parsed(parse_to_frame(text.encode())).triggers[0])
        self.assertEqual(trigger["c"], date(1979, 5, 27))
        self.assertEqual(trigger["b"], datetime(1979, 5, 27, 7, 32))
        self.assertEqual(trigger["h"][1]["i"], time(7, 32))
        self.assertEqual(trigger["e"], 2**80)

    def test_huge_integers_alone(self) -> None:
        """An integer over 64 bits crosses where there are no moments either."""
        self.check(f"x = {2**70}\n[[triggers]]\ny = {2**70}\n")

    def test_nan(self) -> None:
        """NaN crosses, too (it is equal to nothing)."""
        head = decode_value(decode_parsed(parse_to_frame(b"x = nan\n")).head)
        self.assertNotEqual(head["x"], head["x"])

    def test_tables_nested_too_deep(self) -> None:
        """What the parser takes and the answer cannot hold is malformed, not the end of the child."""
        answered = decode_parsed(parse_to_frame((".".join("a" * 5000) + " = 1\n").encode()))
        self.assertIn("nested too deep", getattr(answered.malformed, "message", ""))


class ParseInChildTests(TestCase):
    """`parse_in_child`, with real processes."""

    async def test_answers(self) -> None:
        """The child answers what `answer` gives, whatever the environment and the working directory are."""
        from twisted.internet import reactor

        text = manifest_text(2000)
        self.assertEqual(await parse_in_child(text, reactor), parse_to_frame(text.encode()))

    async def test_cancelling_kills_it(self) -> None:
        """A cancelled parse leaves no process, and its Deferred fails with `CancelledError`."""
        from twisted.internet import reactor

        ended: Deferred[Any] = Deferred()

        class Watching:
            """The reactor, watching one process."""

            def spawnProcess(self, protocol: Any, *args: Any, **kwargs: Any) -> Any:
                over = protocol.processEnded

                def note(reason: Failure) -> None:
                    over(reason)
                    ended.errback(reason)

                protocol.processEnded = note
                return reactor.spawnProcess(protocol, *args, **kwargs)

        parsing = parse_in_child(manifest_text(2000), Watching())
        parsing.cancel()
        await self.assertFailure(parsing, CancelledError)
        reason = await self.assertFailure(ended, ProcessTerminated)
        self.assertEqual(reason.signal, 9)

    async def test_signals_to_the_group(self) -> None:
        """Ctrl-C reaches each process of the terminal's group; a reload that is under way still reads its manifest."""
        from twisted.internet import reactor

        class Interrupting:
            """A reactor whose processes get the signals of a terminal as soon as they are there."""

            def spawnProcess(self, *args: Any, **kwargs: Any) -> Any:
                process = reactor.spawnProcess(*args, **kwargs)
                for name in ("INT", "TERM", "HUP"):
                    process.signalProcess(name)
                return process

        answered = await parse_in_child("x = 1", Interrupting())
        self.assertIsNone(decode_parsed(answered).malformed)


class _NoProcess:
    """A reactor that cannot start a process."""

    def spawnProcess(self, *args: object, **kwargs: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")


class _Spawned:
    """A reactor whose processes are played by the test."""

    protocol: Any

    def spawnProcess(self, protocol: Any, *args: object, **kwargs: object) -> None:
        self.protocol = protocol


class FailureTests(SynchronousTestCase):
    """Failures of a child."""

    def test_no_process_to_be_had(self) -> None:
        """That no process can be started is a failure of the stage, not of the manifest."""
        error = self.assertRaises(StageFailed, parse_in_child, "x = 1", _NoProcess())
        self.assertEqual(error.stage, "parse")
        self.assertIn("temporarily unavailable", str(error))

    def test_killed(self) -> None:
        """A child that ends early fails the stage and says how, with the last thing it said itself."""
        for said, expected in ((b"", "signal 9"), (b"Traceback\nMemoryError\n", "MemoryError")):
            reactor = _Spawned()
            parsing = parse_in_child("x = 1", reactor)
            reactor.protocol.errReceived(said)
            reactor.protocol.processEnded(Failure(ProcessTerminated(signal=9)))
            error = self.failureResultOf(parsing, StageFailed).value
            self.assertIn(expected, str(error))

    def test_cancelling_one_that_has_just_exited(self) -> None:
        """Between its exit and the end of its pipes there is nothing left to kill."""

        class Transport:
            """A process that is gone."""

            def signalProcess(self, signal: str) -> None:
                raise ProcessExitedAlready

            def loseConnection(self) -> None:
                pass

        reactor = _Spawned()
        parsing = parse_in_child("x = 1", reactor)
        reactor.protocol.transport = Transport()
        parsing.cancel()
        self.failureResultOf(parsing, CancelledError)
        reactor.protocol.processEnded(Failure(ProcessTerminated(signal=9)))

    def test_output_that_is_no_answer(self) -> None:
        """Anything else on the child's output is an error of decoding."""
        self.assertRaises(msgspec.DecodeError, decode_parsed, b"hello")
