"""What is logged: for machines as JSON, with the ids of the delivery that it is about."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from harn.testing.server import TWISTD, Connection, wait_until
from tests.integration.case import ServerCase, trigger_text


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
    """A log that nobody reads."""

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
        server = self.serve("--log-format", "json", wrapper=shell, ready=False)
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
        while b"HTTP listener ready" not in said:  # what was kept comes when somebody reads again
            said += os.read(reader, 65536)
        os.set_blocking(reader, False)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(reader, b"\n" * 4096)
        self.assertEqual(server.terminate(), 0)


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
