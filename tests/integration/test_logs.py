"""What is logged: for machines as JSON, with the ids of the delivery that it is about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harn.testing.server import SERVE, TWISTD, Connection, ServerProcess, wait_until
from tests.integration.case import ServerCase, SharedServerCase, trigger_text

IN_FOREGROUND = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup a child ignores it from its start
terminal = os.open(sys.argv[1], os.O_RDWR)  # the first that the leader of a session opens is the session's
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execvp(sys.argv[2], sys.argv[2:])
"""


FAILING = """
    import logging
    from harn.handlers import Reject, RetryAfter

    def raising(event):
        raise KeyError("amount\\n[harn] error: forged")

    async def slow(event):
        await asyncio.sleep(600)

    def rejecting(event):
        raise Reject("not ours")

    def busy(event):
        raise RetryAfter("0", "billing is away")

    def invalid(event):
        return object()

    def talking(event, context):
        context.log.warning("low stock", item="i-1", left=2)
        logging.getLogger("shop").error("no %s", "price")
        logging.getLogger("shop").debug("unseen")
    """


class TextTests(SharedServerCase):
    """The default format, at the default level."""

    def line(self, server: ServerProcess, pattern: str) -> str:
        """Wait for a line of a record that matches, and return it."""
        found = server.wait_for_line(rf"^\[harn\] 20\d\d-\d\d-\d\dT[0-9:.]{{12}}Z {pattern}")
        return str(found.string)

    def test_failures(self) -> None:
        """Each failed attempt is a warning, each dead letter an error: ids, class, what follows and a command."""
        self.write_handlers(more=FAILING)
        error = {
            "raising": r"\(handler_error\): KeyError: .amount\\\\?n\[harn\] error: forged.",
            "slow": r"\(handler_timeout\): ran longer than 0.4 s",
            "rejecting": r"\(rejected\): not ours",
            "busy": r"\(retry_after\): billing is away",
            "invalid": r"\(result_invalid\): the result is not JSON: .*",
        }
        retry = 'retry = { max = 2, schedule = ["300ms"] }'
        extra = {each: retry + ('\ntimeout = "400ms"' if each == "slow" else "") for each in error}
        self.write_manifest(*(trigger_text(each, handler=f"handlers:{each}", extra=extra[each]) for each in error))
        server = self.serve()
        for each, said in error.items():
            event_id = self.assert_accepted(server.deliver(f"/triggers/{each}", delivery=f"d-{each}"), each)
            of = rf"{each}@v\d+ {event_id}: "
            closer = f"look closer: harn orchestrator delivery {event_id}$"
            if each == "rejecting":
                self.line(server, rf"warning: {of}attempt 1 of 2 failed {said}; dead letter: rejected; {closer}")
                self.line(server, rf"error: {of}dead letter after 1 attempt: rejected: not ours; {closer}")
                continue
            follows, how = ("now", "asked for a retry") if each == "busy" else ("in 0.3 s", "failed")
            self.line(server, rf"warning: {of}attempt 1 of 2 {how} {said}; again {follows} on v\d+; {closer}")
            self.line(server, rf"warning: {of}attempt 2 of 2 {how} {said}; dead letter: retry_exhausted; {closer}")
            self.line(server, rf"error: {of}dead letter after 2 attempts: retry_exhausted {said}; {closer}")
        server.wait_for_line(r'^\[harn\]       File ".*handlers.py", line \d+, in raising')
        self.assertFalse([line for line in server.lines if line.startswith("[harn] error: forged")])

    def test_refused_and_said(self) -> None:
        """A wrong signature is a warning with its source; what handlers log has their level, ids and fields."""
        self.write_handlers(more=FAILING)
        self.write_manifest(trigger_text("talk", handler="handlers:talking"))
        server = self.serve()
        self.assert_problem(server.deliver("/triggers/talk", delivery="d1", secret=b"wrong-secret"), 401)
        self.line(server, r"warning: trigger talk: a request from 127.0.0.1 was refused with 401: X-Hub-Signature-256 ")
        event_id = self.assert_accepted(server.deliver("/triggers/talk", delivery="d2"), "talk")
        self.line(server, rf"warning: talk@v\d+ {event_id}: low stock item=i-1 left=2$")
        self.line(server, rf"error: talk@v\d+ {event_id}: no price logger=shop$")
        self.assertNotIn("unseen", server.stderr)


class LogTests(ServerCase):
    """``--log-format json``."""

    def records(self) -> list[dict[str, Any]]:
        """Read the log file in the state directory; every line of it is JSON."""
        path = self.directory / "state" / "logs" / "orchestrator.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def test_prints_of_handlers(self) -> None:
        """What a handler prints is a record with its delivery's ids; the ready line stays on standard error."""
        self.write_handlers(
            more="""
            import sys

            def chatty(event, context):
                print("said aloud")
                print("said in error", file=sys.stderr)
                return on_event(event, context)
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:chatty"))
        server = self.serve("--log-format", "json")
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        for text in ("said aloud", "said in error"):
            found = wait_until(
                lambda text=text: [each for each in self.records() if text in json.dumps(each)], f"{text!r} in the log"
            )
            self.assertIn(event_id, json.dumps(found[0]))

    def test_accepted_events(self) -> None:
        """Each accepted event is a record, ``trigger event accepted``, with its id and the id of its trace."""
        server = self.serve("--log-format", "json")
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        self.assertEqual(server.terminate(), 0)
        found = [each for each in self.records() if each["message"].startswith("trigger event accepted")]
        self.assertEqual([each["event_id"] for each in found], [event_id])
        self.assertTrue(found[0]["trace_id"].startswith("trace_"), found)

    def test_failed_attempt(self) -> None:
        """A failed attempt and a dead letter are one object each, with the ids and the handler's traceback."""
        self.write_handlers(more=FAILING)
        self.write_manifest(trigger_text("gh", handler="handlers:raising", extra="retry = { max = 1 }"))
        server = self.serve("--log-format", "json")
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.dlq", 1)
        self.assertEqual(server.terminate(), 0)
        attempt, dead = [each for each in self.records() if each.get("error_class")]
        for record, level in ((attempt, "warn"), (dead, "error")):
            ids = {name: record[name] for name in ("level", "event_id", "binding", "trigger_id")}
            self.assertEqual(ids, {"level": level, "event_id": event_id, "binding": "gh@v1", "trigger_id": "gh"})
            self.assertTrue(record["trace_id"].startswith("trace_"), record)
        self.assertIn("in raising", attempt["user_traceback"])
        self.assertEqual((attempt["attempt"], attempt["max_attempts"], dead["reason"]), (1, 1, "retry_exhausted"))

    def test_nothing_secret(self) -> None:
        """Neither secrets nor keys are in anything that the server says, at the most talkative level."""
        server = self.serve("--log-format", "json", "--log-level", "debug")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", headers={"Authorization": "Bearer hush"}))
        self.assert_problem(server.deliver("/triggers/gh", delivery="d2", secret=b"wrong"), 401)
        self.assert_problem(server.admin("GET", "/admin/generation", key="not-this-one"), 401)
        self.wait_handled("d1")
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(server.terminate(), 0)
        everything = server.stderr + (self.directory / "stdout.log").read_text() + json.dumps(self.records())
        for word in ("test-secret", "test-key", "hush", "not-this-one"):
            self.assertNotIn(word, everything)


class StoppedReaderTests(ServerCase):
    """A log without a reader."""

    def test_server_goes_on(self) -> None:
        """While standard output and error cannot be written to, the server starts, serves, reloads and ends."""
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(reader, b"\n" * 4096)
        shell = ("sh", "-c", f'exec "$0" "$@" >"{pipe}" 2>&1')
        server = self.serve("--log-format", "json", launcher=(*shell, *SERVE), ready=False)
        state_file = server.state_dir / "orchestrator-state.json"
        wait_until(state_file.exists, "the state file")
        connection = Connection(json.loads(state_file.read_text())["listener_url"])
        self.addCleanup(connection.close)
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        wait_until(lambda: connection.request("GET", "/readyz?generation=2").status == 200, "generation 2")
        os.set_blocking(reader, True)
        said = b""
        while b"HTTP listener ready" not in said:  # what was kept comes when the pipe is read again
            said += os.read(reader, 65536)
        os.set_blocking(reader, False)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(reader, b"\n" * 4096)
        self.assertEqual(server.terminate(), 0)


class TerminalTests(ServerCase):
    """A terminal that is gone."""

    def test_hang_up(self) -> None:
        """
        When its terminal is closed a server in the foreground ends, in good order; one that was started to outlive the
        terminal (here by ``nohup``) takes the SIGHUP for a reload, and what it writes to nowhere does it no harm.
        """
        self.assertEqual(self.close_terminal(wrapper=()).wait(20), 0)
        self.assertEqual(json.loads(self.state_file.read_text())["status"], "stopped")
        self.state_file.unlink()
        server = self.close_terminal(wrapper=("nohup",))
        connection = Connection(json.loads(self.state_file.read_text())["listener_url"])
        self.addCleanup(connection.close)
        wait_until(lambda: connection.request("GET", "/readyz?generation=2").status == 200, "generation 2")
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
        server.terminate()
        self.assertEqual(server.wait(20), 0)

    def close_terminal(self, wrapper: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Start a server in the foreground of a terminal, edit its handlers, and close the terminal."""
        ours, theirs = os.openpty()
        self.addCleanup(os.close, theirs)
        self.write_handlers()
        self.write_manifest()
        places = ("--config", "harn.toml", "--state-dir", "state", "--bind", "127.0.0.1:0")
        server = subprocess.Popen(
            [sys.executable, "-c", IN_FOREGROUND, os.ttyname(theirs), *wrapper, *SERVE, *places],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.addCleanup(server.wait, 20)
        self.addCleanup(server.kill)
        self.state_file = self.directory / "state" / "orchestrator-state.json"
        wait_until(lambda: self.state_file.exists() and b"running" in self.state_file.read_bytes(), "the state file")
        self.write_handlers("two")
        os.close(ours)
        return server


class MovedFileTests(ServerCase):
    """Log files that were moved."""

    def moved(self, path: Path, pid: int, number: int) -> None:
        """Move a log file, send the signal, and wait for a file of the old name."""
        wait_until(path.exists, str(path))
        path.rename(path.with_suffix(".old"))
        os.kill(pid, number)

    def test_file_of_the_state_directory(self) -> None:
        """SIGUSR1, as SIGHUP, makes the server write to a file of the old name; SIGUSR1 reloads nothing."""
        server = self.serve("--log-format", "json")
        path = self.directory / "state" / "logs" / "orchestrator.log"
        for number, delivery in ((signal.SIGUSR1, "d1"), (signal.SIGHUP, "d2")):
            self.moved(path, server.pid, number)
            event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery=delivery))
            wait_until(lambda event_id=event_id: path.exists() and event_id in path.read_text(), "the new file")
        self.assertEqual(server.state()["generation"], 1)

    def test_file_of_twistd(self) -> None:
        """So it is with ``twistd --logfile``."""
        launcher = (*TWISTD, "-n", f"--logfile={self.directory / 'twistd.log'}", "harn-orchestrator")
        server = self.serve("--log-level", "debug", launcher=launcher)
        self.moved(self.directory / "twistd.log", server.pid, signal.SIGUSR1)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        path = self.directory / "twistd.log"
        wait_until(lambda: path.exists() and "event accepted" in path.read_text(), "the new file")
        self.assertEqual(server.terminate(), 0, server.stderr)
