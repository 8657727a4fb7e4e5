"""Several workers on one port and one PostgreSQL: one is killed, all reload, all are restarted, all end."""

from __future__ import annotations

import os
import signal

from harn.store.lock import holder, read_state
from harn.testing.server import ServerProcess, environment, is_alive, run_harn, wait_until
from tests import postgres
from tests.integration.case import ServerCase, held_trigger, trigger_text


class WorkersTests(ServerCase):
    """One command with two workers."""

    def setUp(self) -> None:
        """Use an empty schema of the PostgreSQL that the tests of this process share."""
        super().setUp()
        schema = f"harn_workers_{os.getpid()}"
        postgres.emptied(schema)
        self.environ["HARN_ORCHESTRATOR_STORE"] = postgres.url(schema)

    def pids(self) -> list[int]:
        """Return the process ids of the workers that hold their state directories."""
        found = (holder(str(self.directory / "state" / f"worker-{number}")) for number in (1, 2))
        return [each for each in found if each]

    def wait_serving(self, server: ServerProcess, *gone: int) -> list[int]:
        """Wait until both serve, and none has one of these process ids; return theirs."""

        def serving() -> list[int] | None:
            states = [read_state(str(self.directory / "state" / f"worker-{number}")) or {} for number in (1, 2)]
            found = [each["pid"] for each in states if each.get("status") == "running"]
            return found if len(found) == 2 and not set(found) & set(gone) and found == self.pids() else None

        wait_until(lambda: serving() or server.process.poll() is not None, f"both to serve: {server.lines}")
        found = serving()
        assert found is not None, server.stderr
        return found

    def deliver(self, server: ServerProcess, *names: str, path: str = "/triggers/gh") -> None:
        """Deliver events that are accepted, each on a connection of its own, whichever worker takes that."""
        for name in names:
            self.assert_accepted(server.deliver(path, delivery=name), path.rpartition("/")[2])

    def test_a_life_of_two(self) -> None:
        """Nothing is lost or refused while one is killed, both reload, and each is restarted; the end is in order."""
        self.write_handlers()
        self.write_manifest(trigger_text("gh"), held_trigger("slow"))
        server = self.serve("--workers", "2")
        first, second = self.wait_serving(server)
        self.deliver(server, "d0", "d1")
        self.deliver(server, "k0", path="/triggers/slow")
        self.wait_begun("k0")
        os.kill(first, signal.SIGKILL)
        self.deliver(server, "d2", "d3")
        first, _ = self.wait_serving(server, first)
        self.release()
        self.wait_handled("d0", "d1", "d2", "d3", "k0")
        self.assertIn("worker-1 ended by signal 9", server.stderr)
        self.a_reload(server)
        self.a_second_command()
        self.a_restart(server, first, second)

    def a_reload(self, server: ServerProcess) -> None:
        """Reload both by SIGHUP to the supervisor, and by a command with the token of its state directory."""
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        wait_until(lambda: self.generations() == [2, 2], "both to adopt")
        self.write_handlers("three")
        environ = environment({**self.environ, "HARN_ORCHESTRATOR_API_KEYS": None})
        done = run_harn(self.directory, "reload", "--state-dir", "state", environ=environ)
        self.assertEqual(done.status, 0, done)
        self.assertIn("reload ok", done.stdout)
        wait_until(lambda: self.generations() == [3, 3], "both to adopt")

    def generations(self) -> list[int]:
        """Return the generations that serve, as the servers' list has them."""
        return [each["generation"] for each in self.checked("servers")["servers"] if each["status"] == "serving"]

    def a_second_command(self) -> None:
        """Check that a second supervisor of the state directory is refused."""
        refused = self.serve("--workers", "2", ready=False)
        self.assertIn("is held by another server", self.ended(refused))

    def a_restart(self, server: ServerProcess, *before: int) -> None:
        """Restart the workers one by one, and refuse nothing meanwhile; then end all, with 0."""
        server.signal(signal.SIGUSR2)
        names: list[str] = []
        while not any("all workers were restarted" in line for line in server.lines):
            names.append(f"r{len(names)}")
            self.deliver(server, names[-1])
        after = self.wait_serving(server, *before)
        self.wait_handled(*names)
        self.assertEqual(server.terminate(), 0, server.stderr)
        self.assertFalse(any(map(is_alive, after)))
        self.assertIn("worker-2: graceful shutdown complete", server.stderr)
        self.an_orphan()

    def an_orphan(self) -> None:
        """Kill a supervisor: its workers end by themselves."""
        server = self.serve("--workers", "2")
        pids = self.wait_serving(server)
        server.kill()
        wait_until(lambda: not any(map(is_alive, pids)), "the workers to end")


class RefusedTests(ServerCase):
    """Workers that cannot share a store."""

    def test_sqlite(self) -> None:
        """SQLite is refused before anything is made, and the message says what to set."""
        said = self.ended(self.serve("--workers", "2", ready=False))
        self.assertIn("set [orchestrator] store", said)
        self.assertFalse((self.directory / "state").exists())

    def test_a_manifest_that_cannot_be_read(self) -> None:
        """What is wrong with the manifest is said once, by the first worker, and the command ends."""
        self.write("harn.toml", "[[triggers")
        said = self.ended(self.serve("--workers", "2", ready=False))
        self.assertEqual(said.count("error: harn.toml:1"), 1, said)
        self.assertNotIn("started again", said)
