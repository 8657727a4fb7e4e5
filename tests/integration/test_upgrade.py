"""SIGUSR2: a new program replaces the old one on the same socket, without an effect that clients can see."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harn.store.lock import holder
from harn.testing.server import READY, TWISTD, Answer, Connection, ServerProcess, is_alive, wait_until
from tests.integration.case import ServerCase, held_trigger, trigger_text

HELD = held_trigger("gh")
STARTS = re.compile(r"upgrade: process (\d+) starts")
SLOW_IMPORT = """
note(importing=True)
while not os.path.exists(os.environ["TEST_RELEASE"] + ".import"):
    time.sleep(0.01)
"""


class UpgradeCase(ServerCase):
    """Servers that are upgraded, and whose programs are all ended after the test."""

    def serve(self, *arguments: str, **more: Any) -> ServerProcess:
        """Start a server; see `ServerCase.serve`."""
        server = super().serve(*arguments, **more)
        self.addCleanup(self.end_all, server)
        return server

    def programs(self, server: ServerProcess) -> list[int]:
        """Return the ids of the programs that upgrades have started, from the log."""
        return [int(found[1]) for found in map(STARTS.search, list(server.lines)) if found]

    def end_all(self, server: ServerProcess) -> None:
        """End the programs that upgrades have started."""
        for pid in filter(is_alive, self.programs(server)):
            os.kill(pid, signal.SIGKILL)

    def begin(self, server: ServerProcess, pid: int) -> int:
        """Send a program the signal for an upgrade; return the id of the new one that it starts."""
        before = len(self.programs(server))
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: len(self.programs(server)) > before, "the new program to be started")
        return self.programs(server)[-1]

    def upgrade(self, server: ServerProcess, pid: int) -> int:
        """Upgrade a program; give the number of the one that serves then."""
        before = self.ready_lines(server)
        new = self.begin(server, pid)
        wait_until(lambda: self.ready_lines(server) > before, f"process {new} to serve; {server.lines[-5:]}")
        self.assertEqual(self.state_pid(server), new)
        return new

    @staticmethod
    def ready_lines(server: ServerProcess) -> int:
        """Count how often a program said that it takes requests."""
        return sum(READY.search(line) is not None for line in list(server.lines))

    def state_pid(self, server: ServerProcess) -> int:
        """Return the process id of the state file."""
        return int(server.state()["pid"])

    def wait_ended(self, pid: int) -> None:
        """Wait for a program's end."""
        wait_until(lambda: not is_alive(pid), f"the end of process {pid}")

    def kill(self, server: ServerProcess) -> None:
        """Kill the first program, and wait until what it started has ended, too: but for the new one."""
        started = set(server.children()) - set(self.programs(server))
        server.process.kill()
        server.process.wait(20.0)
        wait_until(lambda: not any(map(is_alive, started)), "the end of its interpreters")

    def wait_begun_again(self, key: str) -> None:
        """Wait until the handler ``held`` has begun a delivery a second time."""
        wait_until(lambda: self.begun().count(key) == 2, f"{key} to begin again")

    def old_status(self, server: ServerProcess) -> int | None:
        """Wait for the end of the first program, whose output others have, too; give its exit status."""
        wait_until(lambda: server.process.poll() is not None, f"the old program's end; {server.lines[-5:]}")
        return server.process.returncode


class HandoverTests(UpgradeCase):
    """Upgrades that go well."""

    def test_traffic(self) -> None:
        """
        Over two upgrades in a row every delivery on kept and on fresh connections is accepted, and handled once; the
        state directory is never free.
        """
        server = self.serve()
        over = threading.Event()
        free: list[object] = []

        def post(name: str, *, keep: bool) -> list[tuple[str, Answer]]:
            answers: list[Any] = []
            connection = server.connect()
            while not over.wait(0.01):
                if not keep:
                    connection.close()
                    connection = server.connect()
                key = f"{name}-{len(answers)}"
                answers.append((key, connection.deliver("/triggers/gh", delivery=key)))
            connection.close()
            return answers

        def watch_lock() -> None:
            while not over.wait(0.002):
                if holder(str(server.state_dir)) is None:
                    free.append(server.lines[-1])

        with ThreadPoolExecutor(7) as pool:
            posting = [pool.submit(post, f"c{index}", keep=index < 4) for index in range(6)]
            watching = pool.submit(watch_lock)
            try:
                second = self.upgrade(server, server.pid)
                self.assertEqual(self.old_status(server), 0)
                third = self.upgrade(server, second)
                self.wait_ended(second)
            finally:
                over.set()
            answers = [each for future in posting for each in future.result()]
            watching.result()
        self.assertEqual(len({server.pid, second, third}), 3)
        self.assertEqual(free, [])
        self.assertEqual([each for each in answers if each[1].status != 200], [])
        keys = [key for key, answer in answers if self.assert_accepted(answer, binding="gh@v1")]
        self.wait_handled(*keys)
        self.assertEqual(sorted(self.handled()), sorted(keys))
        self.assertGreater(len(keys), 50)
        os.kill(third, signal.SIGTERM)
        self.wait_ended(third)
        self.assertEqual((server.state()["status"], server.state()["pid"]), ("stopped", third))
        self.assertIsNone(holder(str(server.state_dir)))

    def test_running_handler_ends_in_the_old_program(self) -> None:
        """What the old program runs ends there, at its first attempt, while the new one serves; what it queued, too."""
        self.write_manifest(HELD, head="[orchestrator.pumps]\nmax_outstanding = 1\n")
        server = self.serve()
        for key in ("running", "queued"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("running")
        new = self.upgrade(server, server.pid)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="new"))
        self.wait_begun("new")
        self.assertIsNone(server.process.poll())
        self.release()
        self.assertEqual(self.old_status(server), 0)
        seen = self.wait_handled("running", "queued", "new")
        self.assertEqual(sorted(each["key"] for each in seen), ["new", "queued", "running"])
        self.assertEqual({each["attempt"] for each in seen}, {1})
        self.assertEqual(sorted(self.begun()), ["new", "queued", "running"])
        self.assertEqual(self.state_pid(server), new)

    def test_kept_connections(self) -> None:
        """
        A kept connection is served once more and then closed, with the word that it will be; one on which nothing more
        comes is closed in good order.
        """
        server = self.serve()
        used, unused = server.connect(), socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30)
        self.addCleanup(unused.close)
        self.assert_accepted(used.deliver("/triggers/gh", delivery="d1"))
        self.upgrade(server, server.pid)
        answer = used.deliver("/triggers/gh", delivery="d2")
        self.assert_accepted(answer)
        self.assertEqual(answer.headers["connection"], "close")
        self.assertEqual(unused.recv(100), b"")
        self.assertEqual(self.old_status(server), 0)
        self.wait_handled("d1", "d2")

    def test_new_content(self) -> None:
        """A new program starts with what the files say now; what came before the handover is as it was."""
        server = self.serve()
        kept = server.connect()
        self.assert_accepted(kept.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_handlers("two")
        self.upgrade(server, server.pid)
        self.assert_accepted(kept.deliver("/triggers/gh", delivery="d2"), binding="gh@v1")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d3"), binding="gh@v2")
        versions = {each["key"]: each["version"] for each in self.wait_handled("d1", "d2", "d3")}
        self.assertEqual(versions, {"d1": "one", "d2": "one", "d3": "two"})
        self.assertEqual(server.generation()["generation"], 2)

    def test_hang_up_meanwhile(self) -> None:
        """A SIGHUP to the old program during the upgrade is the new one's to follow."""
        server = self.serve()
        self.write_handlers("two", SLOW_IMPORT)
        self.begin(server, server.pid)
        wait_until(lambda: any("importing" in each for each in self.seen()), "the import")
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGUSR2)
        server.wait_for_line("SIGUSR2: an upgrade is under way")
        self.release("import")
        self.wait_last_reload(server, lambda last: last["source"] == "signal")
        self.assertEqual(self.old_status(server), 0)
        self.assertEqual(server.generation()["generation"], 2)

    def test_old_program_is_killed(self) -> None:
        """What the old program had when it was killed, running or queued, continues in the new one."""
        self.write_manifest(HELD, head="[orchestrator.pumps]\nmax_outstanding = 1\n")
        server = self.serve()
        for key in ("running", "queued"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("running")
        new = self.upgrade(server, server.pid)
        os.kill(new, signal.SIGUSR2)
        server.wait_for_line(rf"program that this one replaced \(pid {server.pid}\) still finishes its work")
        self.kill(server)
        self.wait_begun_again("running")
        self.release()
        self.wait_handled("running", "queued")
        self.assertEqual(sorted(self.handled()), ["queued", "running"])
        third = self.upgrade(server, new)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="later"))
        self.wait_handled("later")
        self.assertEqual(self.state_pid(server), third)

    def test_waiting_retry(self) -> None:
        """A retry that waits when the old program leaves is the new one's."""
        self.write_handlers(
            more="""
            from harn.handlers import RetryAfter

            def failing(event, context):
                if context.attempt == 1:
                    raise RetryAfter(2)
                return on_event(event, context)
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:failing"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.attempts", 1)
        self.upgrade(server, server.pid)
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["attempt"], 2)


class FailureTests(UpgradeCase):
    """Upgrades that come to nothing: the old program continues as if nothing had happened."""

    def assert_goes_on(self, server: ServerProcess, key: str, binding: str = "gh@v1") -> None:
        """See that the first program serves, and that its state directory is its own."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding=binding)
        self.wait_handled(key)
        self.assertEqual((self.state_pid(server), holder(str(server.state_dir))), (server.pid, server.pid))

    def test_broken_manifest(self) -> None:
        """A new program that cannot start says why and ends; corrected, a reload and an upgrade go well."""
        server = self.serve()
        kept = server.connect()
        self.assert_accepted(kept.deliver("/triggers/gh", delivery="d1"))
        self.write_manifest(trigger_text("gh", extra="colour = 1"))
        new = self.begin(server, server.pid)
        server.wait_for_line("this process goes on serving.*ended with status 1", 60.0)
        self.assertIn("colour", server.stderr)
        self.assertFalse(is_alive(new))
        self.assert_accepted(kept.deliver("/triggers/gh", delivery="d2"))
        self.assertTrue(kept.is_open)
        self.assert_goes_on(server, "d3")
        self.write_manifest()
        self.write_handlers("two")
        report = self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(report["generation"], 2)
        self.upgrade(server, server.pid)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d4"), binding="gh@v2")

    def test_new_program_is_killed(self) -> None:
        """A new program that is killed while it starts changes nothing; a SIGHUP that came meanwhile counts then."""
        server = self.serve()
        self.write_handlers("two", SLOW_IMPORT)
        new = self.begin(server, server.pid)
        wait_until(lambda: any("importing" in each for each in self.seen()), "the import")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        server.signal(signal.SIGHUP)
        os.kill(new, signal.SIGKILL)
        server.wait_for_line("this process goes on serving.*by signal 9")
        self.release("import")
        self.wait_generation(server, 2)
        self.assert_goes_on(server, "d2", "gh@v2")

    def test_new_program_is_ended(self) -> None:
        """So does one that is asked to end."""
        server = self.serve()
        self.write_handlers("two", SLOW_IMPORT)
        new = self.begin(server, server.pid)
        wait_until(lambda: any("importing" in each for each in self.seen()), "the import")
        os.kill(new, signal.SIGTERM)
        server.wait_for_line("this process goes on serving.*with status 0")
        self.assert_goes_on(server, "d1")

    def test_old_program_is_ended(self) -> None:
        """SIGTERM while the new program starts ends the server: both programs, with nothing left."""
        server = self.serve()
        self.write_handlers("two", SLOW_IMPORT)
        new = self.begin(server, server.pid)
        wait_until(lambda: any("importing" in each for each in self.seen()), "the import")
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.wait_ended(new)
        self.assertEqual(server.state()["status"], "stopped")
        self.assertIsNone(holder(str(server.state_dir)))
        self.release("import")
        self.assert_accepted(self.serve().deliver("/triggers/gh", delivery="d1"), binding="gh@v2")

    def test_old_program_is_killed_early(self) -> None:
        """When the old program is killed before it has handed over, the new one takes everything over."""
        self.write_handlers("one")
        self.write_manifest(HELD)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write_handlers("two", SLOW_IMPORT)
        new = self.begin(server, server.pid)
        wait_until(lambda: any("importing" in each for each in self.seen()), "the import")
        self.kill(server)
        self.release("import")
        self.wait_begun_again("d1")
        self.release()
        wait_until(lambda: self.state_pid(server) == new, f"the new program to serve; {server.lines}")
        [seen] = self.wait_handled("d1")
        self.assertEqual((seen["version"], seen["binding"]), ("one", "gh@v1"))
        connection = Connection(server.state()["listener_url"])
        self.addCleanup(connection.close)
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")

    def test_twistd(self) -> None:
        """Under twistd nothing is known of how the program was started: that is said, and it continues."""
        server = self.serve(launcher=(*TWISTD, "-n", "harn-orchestrator"))
        server.signal(signal.SIGUSR2)
        server.wait_for_line("only a server that was started by `harn orchestrator serve`")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))

    def test_variable_of_nobody(self) -> None:
        """The variable of a handover in an environment where there is none is refused in words."""
        server = self.serve(ready=False, environ={**self.environ, "HARN_HANDOVER": "yes"})
        self.assertIn("take it out of the environment", self.ended(server))
