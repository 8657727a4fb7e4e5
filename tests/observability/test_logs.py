"""Log records: their form, what is kept out of them, and where they go."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from functools import partial
from types import SimpleNamespace
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogBeginner, Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.model.display import REDACTED, looks_secret
from harn.observability import logs
from harn.observability.log_limits import DEFAULT, LEVELS
from harn.observability.logfile import UNSEEN, RotatingFile
from harn.observability.logs import (
    LOG_FILE,
    LogWriter,
    Sinks,
    Threshold,
    add_logging,
    deliveries,
    is_journal,
    make_observers,
    start_logging,
    wants_colours,
    wants_deliveries,
)
from harn.observability.outputs import Output, WriteFailed
from harn.observability.records import as_json, as_pretty, as_text, as_twistd


class ClosedSink:
    """What a reader that went away leaves behind."""

    def write(self, text: str) -> int:
        """Refuse."""
        raise BrokenPipeError(32, "Broken pipe")


class FileSink:
    """A log file that is written to at once."""

    def __init__(self, path: str) -> None:
        self._file = RotatingFile(path)

    def write(self, text: str) -> None:
        """Write."""
        self._file.write(text.encode())


class RecordTests(SynchronousTestCase):
    """How one record looks."""

    def record(self, text: str = "it {what}", **fields: object) -> dict[str, object]:
        """Return a record of level info as it is written in JSON, read back."""
        event = {"log_format": text, "log_level": LogLevel.info, "log_namespace": "harn.x", "log_time": 0.0, **fields}
        line = as_json(event)
        self.assertEqual((line.count("\n"), line[-1]), (1, "\n"))
        return json.loads(line)

    def test_json_record(self) -> None:
        """Time, level, namespace and message are there, the fields beside them, and a trace id always."""
        self.assertEqual(
            self.record(what="works", trigger_id="gh", attempt=2),
            {
                "time": "1970-01-01T00:00:00.000Z",
                "level": "info",
                "namespace": "harn.x",
                "message": "it works",
                "trace_id": "",
                "what": "works",
                "trigger_id": "gh",
                "attempt": 2,
            },
        )
        self.assertEqual(self.record(what="", trace_id="trace_1")["trace_id"], "trace_1")

    def test_a_field_does_not_hide_ours(self) -> None:
        """A field of a name that the record has itself gets another name."""
        record = self.record("said", message="mine", level=3)
        self.assertEqual((record["message"], record["field_message"], record["field_level"]), ("said", "mine", 3))

    def test_secrets_are_kept_out(self) -> None:
        """What a secret-looking field holds is in neither the fields nor the message, at any depth."""
        record = self.record("{api_key} {headers}", api_key="hunter2", headers={"Authorization": "hunter2", "a": 1})
        self.assertNotIn("hunter2", json.dumps(record["headers"]))
        self.assertEqual(record["api_key"], REDACTED)
        self.assertTrue(str(record["message"]).startswith(REDACTED))
        for line in (as_text, lambda event: as_pretty(event, colours=False)):
            self.assertNotIn("hunter2", line({"log_format": "{token}", "log_level": LogLevel.warn, "token": "hunter2"}))

    def test_what_looks_secret(self) -> None:
        """Names of credentials are secret, in any spelling; names of identities, and of counts of tokens, are not."""
        for name in ("authorization", "signature", "apiKey", "api_keys", "X-Api-Key", "Set-Cookie", "password"):
            self.assertTrue(looks_secret(name), name)
        for name in ("binding_key", "dedupe_key", "idempotency_key", "event_key", "token_count", "monkey", "path"):
            self.assertFalse(looks_secret(name), name)

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=8,
            ),
        )
    )
    def test_every_field_can_be_written(self, fields: dict[str, object]) -> None:
        """Whatever the fields hold (lone surrogates, huge numbers, NaN, bytes), a record is one line of JSON."""
        self.record("said", field=fields)

    def test_text(self) -> None:
        """Every line begins with the prefix and the time; a warning and an error say that they are."""
        event = {"log_format": "a\nb", "log_level": LogLevel.info, "log_time": 0.5}
        when = "[harn] 1970-01-01T00:00:00.500Z "
        self.assertEqual(as_text(event), f"{when}a\n[harn]     b\n")
        self.assertEqual(as_text({**event, "log_level": LogLevel.warn}), f"{when}warning: a\n[harn]     b\n")
        self.assertEqual(as_text({**event, "log_level": LogLevel.critical}), f"{when}error: a\n[harn]     b\n")
        self.assertEqual(as_text(event, times=False), "[harn] a\n[harn]     b\n")
        self.assertEqual(as_text({**event, "announce": True}), "[harn] a\n[harn]     b\n")

    def test_fields_of_a_handler(self) -> None:
        """What a handler logs beside its message follows it in every form, secrets redacted."""
        given = {"order": "o-1", "words": "two words", "sum": 1.5, "token": "hunter2", "list": [1, None]}
        event = {"log_format": "{text}", "text": "paid", "fields": given, "log_level": LogLevel.info, "log_time": 0.0}
        shown = 'paid order=o-1 words="two words" sum=1.5 token=[redacted] list=[1,null]\n'
        for line in (as_text(event), as_pretty(event, colours=False), as_twistd(event)):
            self.assertTrue(line.endswith(shown), line)
        self.assertEqual(json.loads(as_json(event))["fields"], {**given, "token": REDACTED})

    def test_pretty(self) -> None:
        """Columns line up; fields that the message does not name follow it; code and further lines are indented."""
        event = {
            "log_format": "{binding}: failed\nagain",
            "log_level": LogLevel.warn,
            "log_namespace": "harn.deliveries",
            "log_time": 0.0,
            "binding": "gh@v1",
            "server_id": "s-1",
            "user_traceback": "File x\n  raise ValueError\n",
        }
        self.assertEqual(
            as_pretty(event, colours=False),
            "1970-01-01 00:00:00.000Z WARN     deliveries gh@v1: failed server_id=s-1\n"
            "    again\n    File x\n      raise ValueError\n",
        )
        other = {**event, "log_level": LogLevel.critical, "log_namespace": "harn", "log_format": "x"}
        columns = [as_pretty(each, colours=False).split("\n")[0] for each in (event, other)]
        self.assertEqual(columns[0].index("gh@v1"), columns[1].index("x "))

    def test_colours(self) -> None:
        """Colours change nothing of the text; without them there is no escape at all."""
        event = {"log_format": "{a}", "a": "b", "c": "d", "log_level": LogLevel.error, "log_time": 0.0}
        coloured = as_pretty(event, colours=True)
        self.assertIn("\x1b[31mERROR", coloured)
        self.assertEqual(re.sub(r"\x1b\[[0-9;]*m", "", coloured), as_pretty(event, colours=False))

    def test_when_colours_are_wanted(self) -> None:
        """On a terminal alone, and not where NO_COLOR is set or the terminal has none."""
        self.assertTrue(wants_colours({"TERM": "xterm", "NO_COLOR": ""}, True))
        for environ, is_terminal in (({}, False), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, True)):
            self.assertFalse(wants_colours(environ, is_terminal), environ)

    def test_journal(self) -> None:
        """Standard error is the journal's if it is the very stream that JOURNAL_STREAM names."""
        with open(self.mktemp(), "w", encoding="ascii") as file:
            found = os.fstat(file.fileno())
            stream = f"{found.st_dev}:{found.st_ino}"
            self.assertTrue(is_journal({"JOURNAL_STREAM": stream}, file.fileno()))
            for other in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": f"{stream}0"}):
                self.assertFalse(is_journal(other, file.fileno()), other)
            number = file.fileno()
        self.assertFalse(is_journal({"JOURNAL_STREAM": stream}, number))

    @given(st.text(st.characters(exclude_categories=()), max_size=40))
    def test_no_forged_line(self, text: str) -> None:
        """No text of others begins a line as a record does, in any form for people."""
        forged = "[harn] 2026-01-01T00:00:00.000Z error: x"
        event = {"log_format": "{said}", "said": f"{text}\n{forged}", "log_level": LogLevel.info, "log_time": 0.0}
        for render in (as_text, partial(as_pretty, colours=False), as_twistd):
            lines = render({**event, "user_traceback": forged, "fields": {text: forged}}).split("\n")[:-1]
            self.assertEqual([line for line in lines[1:] if not re.match(r"\[harn\]     |    |\t", line)], [])
            self.assertNotIn("\r", "".join(lines))

    def test_control_characters(self) -> None:
        """What could steer a terminal or reorder a line is shown escaped, in every form; lines stay lines."""
        said = "a\x1b[2J\x00\x07\x9b\x7f\u202eb\rc\r\nd\te"
        event = {"log_format": "{said}", "said": said, "log_level": LogLevel.info, "log_time": 0.0}
        shown = ["a\\x1b[2J\\x00\\x07\\x9b\\x7f\\u202eb\\rc", "d\te"]
        self.assertEqual(as_text(event, times=False), f"[harn] {shown[0]}\n[harn]     {shown[1]}\n")
        self.assertEqual(
            as_pretty(event, colours=False),
            f"1970-01-01 00:00:00.000Z INFO                {shown[0]}\n    {shown[1]}\n",
        )
        self.assertIn(f"] {shown[0]}\n\t{shown[1]}\n", as_twistd(event))
        line = as_json(event)
        self.assertEqual((line.isascii(), json.loads(line)["said"]), (True, said))

    def test_twistd(self) -> None:
        """A record without a message is left out of twistd's log; secrets are never in it."""
        self.assertEqual(as_twistd({}), "")
        self.assertNotIn("hunter2", as_twistd({"log_format": "{token}", "token": "hunter2"}))

    def test_dropped_notice(self) -> None:
        """What says that records were dropped is a record of the output's form, for each output of a format."""
        for render in (as_text, as_json, partial(as_pretty, colours=False), as_twistd):
            output = Output("stderr", RotatingFile("unused"))
            writer = LogWriter(render, [output])
            self.assertIs(output.notices, writer)
            said = writer.dropped_notice("stderr", 3)
            self.assertIn("3 log records were dropped: stderr could not be written to", said)
            self.assertEqual(said[-1], "\n")
        self.assertEqual(json.loads(LogWriter(as_json, []).dropped_notice("file", 3))["dropped"], 3)

    def test_traceback(self) -> None:
        """A failure's traceback is in every form of its record."""
        events: list[dict[str, object]] = []
        log = Logger(observer=cast("ILogObserver", events.append))
        try:
            raise ValueError("because")
        except ValueError:
            log.failure("it broke")
        self.assertIn("ValueError: because", json.loads(as_json(events[0]))["traceback"])
        self.assertIn("[harn]     builtins.ValueError: because", as_text(events[0]))
        self.assertIn("    builtins.ValueError: because", as_pretty(events[0], colours=True))


class LoggingTests(SynchronousTestCase):
    """Which records go where."""

    def setUp(self) -> None:
        self.out, self.err, self.state_dir = io.StringIO(), io.StringIO(), self.mktemp()
        self.addCleanup(setattr, deliveries, "active", deliveries.active)
        self.patch(logs, "threshold", Threshold())

    def sinks(self) -> Sinks:
        """Make sinks that write at once."""
        return Sinks(stdout=self.out, stderr=self.err, file=FileSink(os.path.join(self.state_dir, LOG_FILE)))

    def begin(self, log_format: str, log_level: str | None = "info") -> LogPublisher:
        """Start logging to a publisher of our own."""
        publisher = LogPublisher()
        beginner = LogBeginner(publisher, io.StringIO(), SimpleNamespace(), SimpleNamespace(showwarning=None))
        start_logging(log_format, log_level, self.sinks(), beginner)
        return publisher

    def log_file(self) -> str:
        """Return the content of the log file."""
        with open(os.path.join(self.state_dir, "logs", "orchestrator.log"), encoding="utf-8") as file:
            return file.read()

    def test_text_goes_to_stderr(self) -> None:
        """Text is for people: on standard error, without debug, and no file."""
        ours = Logger("harn.reload", observer=self.begin("text"))
        ours.info("seen")
        ours.debug("unseen")
        Logger("twisted.web", observer=ours.observer).info("chatter")
        self.assertEqual(self.out.getvalue(), "")
        self.assertRegex(self.err.getvalue(), r"\A\[harn\] 20[-0-9]{8}T[:.0-9]{12}Z seen\n\Z")
        self.assertFalse(os.path.exists(self.state_dir))

    def test_json_goes_to_stdout_and_file(self) -> None:
        """JSON is for machines: on standard output and in the file; standard error has announcements alone."""
        ours = Logger("harn.listener", observer=self.begin("json"))
        ours.info("HTTP listener ready on {url}", url="http://a", announce=True)
        ours.info("said")
        records = [json.loads(line) for line in self.out.getvalue().splitlines()]
        self.assertEqual([record["message"] for record in records], ["HTTP listener ready on http://a", "said"])
        self.assertEqual(self.log_file(), self.out.getvalue())
        self.assertEqual(self.err.getvalue(), "[harn] HTTP listener ready on http://a\n")

    def test_records_of_workers(self) -> None:
        """Of several processes, each record has the name of its own: before the message, or as a field."""
        named = replace(self.sinks(), worker="worker-2")
        for log_format in ("text", "json"):
            for observer in make_observers(log_format, named):
                Logger("harn", observer=observer).warn("said")
        self.assertRegex(self.err.getvalue(), r"Z worker-2: warning: said\n\Z")
        self.assertEqual(json.loads(self.out.getvalue())["worker"], "worker-2")

    def test_announcements_pass_every_level(self) -> None:
        """With a level of errors only, the URL is still logged."""
        ours = Logger("harn", observer=self.begin("text", "error"))
        ours.info("ready", announce=True)
        ours.info("unseen")
        ours.warn("unseen")
        self.assertEqual(self.err.getvalue(), "[harn] ready\n")

    def test_debug_shows_libraries(self) -> None:
        """At debug the libraries' info records are shown, too."""
        publisher = self.begin("pretty", "debug")
        Logger("twisted.web", observer=publisher).info("chatter")
        Logger("harn.x", observer=publisher).debug("detail", a=1)
        self.assertIn("INFO     twisted.web chatter", self.err.getvalue())
        self.assertIn("DEBUG    x          detail a=1", self.err.getvalue())

    def test_level_changes(self) -> None:
        """Another level counts from the next record on, for harn and for libraries; announcements always pass."""
        publisher = self.begin("text", None)
        ours, library = Logger("harn.x", observer=publisher), Logger("twisted.web", observer=publisher)
        for level in ("info", "debug", "error", "warn", "info"):
            logs.threshold.change(level)
            self.assertEqual(logs.threshold.level, level)
            for log in (ours, library):
                for each in LEVELS:
                    log.emit(LogLevel.lookupByName(each), f"{level} {log.namespace} {each}")
            ours.debug(f"{level} aloud", announce=True)
        lines = [re.sub(r"^\[harn\] (20\S+Z )?(warning: )?", "", line) for line in self.err.getvalue().splitlines()]
        said = [line.removeprefix("error: ").split() for line in lines]
        passed = {
            (level, where): [words[2] for words in said if words[:2] == [level, where]]
            for level in ("debug", "warn", "error")
            for where in ("harn.x", "twisted.web")
        }
        self.assertEqual(passed["debug", "harn.x"], list(LEVELS))
        self.assertEqual(passed["debug", "twisted.web"], list(LEVELS[1:]))
        self.assertEqual((passed["warn", "harn.x"], passed["warn", "twisted.web"]), (list(LEVELS[2:]),) * 2)
        self.assertEqual((passed["error", "harn.x"], passed["error", "twisted.web"]), (list(LEVELS[3:]),) * 2)
        at_info = [words[1:] for words in said if words[0] == "info"]
        self.assertEqual(at_info[: len(at_info) // 2], at_info[len(at_info) // 2 :])
        self.assertEqual([words[2] for words in said if words[:2] == ["info", "harn.x"]], list(LEVELS[1:]) * 2)
        self.assertEqual(len([words for words in said if words[1] == "aloud"]), 5)

    def test_level_changes_in_json(self) -> None:
        """Both sinks of JSON follow the level, and so do the records of single deliveries; twistd's log too."""
        ours = Logger("harn", observer=self.begin("json", None))
        ours.debug("unseen")
        self.assertTrue(deliveries.active)
        logs.threshold.change("debug")
        ours.debug("seen")
        logs.threshold.change("warn")
        self.assertFalse(deliveries.active)
        ours.info("unseen")
        self.assertEqual([json.loads(line)["message"] for line in self.out.getvalue().splitlines()], ["seen"])
        self.assertEqual(self.log_file(), self.out.getvalue())
        logs.threshold.change("info")
        self.assertTrue(deliveries.active)

    def test_no_logging_no_deliveries(self) -> None:
        """Before logging has begun a level is kept, and records without a reader are not made."""
        self.assertEqual((logs.threshold.level, deliveries.active), (DEFAULT, False))
        logs.threshold.change("debug")
        self.assertFalse(deliveries.active)
        self.begin("text", None)
        self.assertEqual((logs.threshold.level, deliveries.active), (DEFAULT, False))
        logs.threshold.change("debug")
        self.assertTrue(deliveries.active)

    def test_levels_are_those_of_twisted(self) -> None:
        """Our names are its names, in its order."""
        self.assertEqual(LEVELS, tuple(level.name for level in LogLevel.iterconstants()))

    def test_deliveries_are_for_machines(self) -> None:
        """Records of single deliveries are made for JSON at info, and for people at debug alone."""
        wanted = [
            (kind, level)
            for kind in ("text", "json")
            for level in ("debug", "info", "warn")
            if wants_deliveries(kind, level)
        ]
        self.assertEqual(wanted, [("text", "debug"), ("json", "debug"), ("json", "info")])
        self.begin("json")
        self.assertTrue(deliveries.active)
        self.begin("text")
        self.assertFalse(deliveries.active)

    def test_a_sink_that_is_gone_costs_nothing(self) -> None:
        """When standard output is closed, the file still gets the record and the caller no exception."""
        observers = make_observers("json", replace(self.sinks(), stdout=ClosedSink(), stderr=ClosedSink()))
        for observer in observers:
            Logger("harn", observer=observer).info("said", announce=True)
        self.assertEqual(json.loads(self.log_file())["message"], "said")

    def test_beside_twistd(self) -> None:
        """Beside twistd, whose standard output it is, JSON goes to the file; announcements are on standard error."""
        publisher = LogPublisher()
        add_logging("json", "info", self.sinks(), publisher)
        Logger("harn", observer=publisher).info("ready", announce=True)
        Logger("harn", observer=publisher).info("said")
        self.assertEqual([json.loads(line)["message"] for line in self.log_file().splitlines()], ["ready", "said"])
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("", "[harn] ready\n"))
        logs.threshold.change("debug")
        Logger("harn", observer=publisher).debug("detail")
        logs.threshold.change("error")
        Logger("harn", observer=publisher).warn("unseen")
        self.assertEqual(json.loads(self.log_file().splitlines()[-1])["message"], "detail")

    def test_writer_is_an_observer(self) -> None:
        """What is given to the publisher is what it asks for."""
        verifyObject(ILogObserver, LogWriter(as_text, []))


class RotatingFileTests(SynchronousTestCase):
    """The log file."""

    def test_put_aside_when_full(self) -> None:
        """A text that does not fit begins a new file; the full one is put aside, and no text is torn."""
        path = os.path.join(self.mktemp(), "logs", "x.log")
        file = RotatingFile(path, largest=10)
        for text in (b"aaaaaa\n", b"bbbb\n", b"cccc\n"):
            file.write(text)
        file.close()
        with open(path, encoding="ascii") as newest, open(path + ".1", encoding="ascii") as aside:
            self.assertEqual((newest.read(), aside.read()), ("bbbb\ncccc\n", "aaaaaa\n"))

    def test_goes_on_where_it_was(self) -> None:
        """What was in the file before counts, and stays."""
        path = self.mktemp()
        for _ in range(2):
            file = RotatingFile(os.path.abspath(path), largest=10)
            file.write(b"aaaa\n")
            file.close()
        with open(path, encoding="ascii") as found:
            self.assertEqual(found.read(), "aaaa\naaaa\n")

    def test_no_room(self) -> None:
        """A directory that cannot be made fails that text; later ones are written again."""
        blocker = self.mktemp()
        with open(blocker, "w", encoding="ascii"):
            file = RotatingFile(os.path.join(os.path.abspath(blocker), "x.log"))
        self.assertRaises(WriteFailed, file.write, b"lost\n")
        os.unlink(blocker)
        file.write(b"kept\n")
        with open(file.path, encoding="ascii") as found:
            self.assertEqual(found.read(), "kept\n")

    def test_two_writers(self) -> None:
        """Of two processes one puts the full file aside; the other follows, and puts nothing aside that is not full."""
        path = os.path.abspath(self.mktemp())
        old, new = (RotatingFile(path, largest=10_000, clock=Clock()) for _ in range(2))
        old.write(b"x" * 9_900 + b"\n")
        new.write(b"new begins\n")
        old.write(b"y" * 200 + b"\n")
        old.close()
        new.write(b"z" * 100 + b"\n")
        new.write(b"new continues\n")
        with open(path, encoding="ascii") as newest, open(path + ".1", encoding="ascii") as aside:
            self.assertEqual(newest.read(), "y" * 200 + "\n" + "z" * 100 + "\nnew continues\n")
            self.assertEqual(aside.read(), "x" * 9_900 + "\nnew begins\n")

    def test_follows_one_that_was_put_aside(self) -> None:
        """A file that another process put aside, or removed, gets no more than `UNSEEN` bytes."""
        path = os.path.abspath(self.mktemp())
        for away in (lambda: os.replace(path, path + ".1"), lambda: os.unlink(path)):
            file = RotatingFile(path)
            file.write(b"before\n")
            away()
            for _ in range(2):
                file.write(b"x" * UNSEEN)
            file.write(b"after\n")
            file.close()
            with open(path, encoding="ascii") as newest:
                self.assertEqual(newest.read()[-6:], "after\n")
            os.unlink(path)

    def test_size_of_two(self) -> None:
        """What two processes write counts for both: neither lets the file grow past its size by more than `UNSEEN`."""
        path = os.path.abspath(self.mktemp())
        files = [RotatingFile(path, largest=20_000) for _ in range(2)]
        for _ in range(300):
            for file in files:
                file.write(b"x" * 99 + b"\n")
            self.assertLessEqual(os.path.getsize(path), 20_000 + UNSEEN)
        self.assertLessEqual(os.path.getsize(path + ".1"), 20_000 + UNSEEN)

    def test_moved_or_taken_away(self) -> None:
        """A file that lost its name is left within a second, or at once when that is asked for."""
        path = os.path.abspath(self.mktemp())
        clock = Clock()
        for find_out in (lambda file: clock.advance(1), RotatingFile.reopen):
            for away in (lambda: os.replace(path, path + ".old"), lambda: os.unlink(path)):
                file = RotatingFile(path, clock=clock)
                file.write(b"before\n")
                away()
                find_out(file)
                file.write(b"after\n")
                with open(path, encoding="ascii") as newest:
                    self.assertEqual(newest.read(), "after\n")
                file.close()
                os.unlink(path)

    def test_goes_on_with_the_moved_one(self) -> None:
        """Where no file of the name can be opened, `reopen` leaves the one that is open."""
        directory = os.path.abspath(self.mktemp())
        file = RotatingFile(os.path.join(directory, "x.log"), clock=Clock())
        file.write(b"before\n")
        os.rename(directory, directory + ".old")
        with open(directory, "w", encoding="ascii"):
            file.reopen()
        file.write(b"after\n")
        with open(os.path.join(directory + ".old", "x.log"), encoding="ascii") as found:
            self.assertEqual(found.read(), "before\nafter\n")

    def test_kept_files(self) -> None:
        """Full files are numbered, the newest 1; as many are kept as was said."""
        for keep, found in ((None, ["4", "3", "2", "1"]), (2, ["4", "3", "2"])):
            path = os.path.join(self.mktemp(), "x.log")
            file = RotatingFile(path, largest=2, keep=keep)
            for text in (b"1\n", b"2\n", b"3\n", b"4\n"):
                file.write(text)
            file.close()
            names = sorted(os.listdir(os.path.dirname(path)))
            texts = []
            for name in names:
                with open(os.path.join(os.path.dirname(path), name), encoding="ascii") as each:
                    texts.append(each.read().strip())
            self.assertEqual(texts, found)

    def test_mode(self) -> None:
        """Only the owner can read the log of the state directory."""
        path = os.path.join(self.mktemp(), "logs", "x.log")
        file = RotatingFile(path)
        file.write(b"text\n")
        file.close()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
