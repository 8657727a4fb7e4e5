"""
An upgrade of two servers on one PostgreSQL, one after the other, from another version of the program to this one.

The other version is a copy of the package that differs in its version alone: no earlier one could use PostgreSQL. To
install this one is to replace the copy, as ``pip install --upgrade`` does.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harn
from harn.testing.server import Answer, Connection, ServerProcess, wait_until
from tests.integration.case import held_trigger, trigger_text
from tests.integration.test_upgrade import UpgradeCase
from tests.postgres import own_postgres

BEFORE = "0.0.1"
KEYED = trigger_text("gh", extra="dedupe_key = 'event.dedupe_key'\n")
LINE = f'__version__ = "{harn.__version__}"'


class Sender(threading.Thread):
    """
    Sends deliveries until the test ends it, as through a load balancer: what one server refuses goes to the other.

    :ivar servers: those that it sends to, in turn; the test replaces one that was restarted.
    :ivar accepted: keys of the deliveries that were answered with 200, by the answer's status.
    """

    def __init__(self, *servers: ServerProcess) -> None:
        super().__init__(daemon=True)
        self.servers = list(servers)
        self.accepted: dict[str, str] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Send one delivery after the other; each until a server accepts it."""
        number = 0
        while not self.over.wait(0.02):
            key = f"d{number}"
            answer = self.send(self.servers[number % 2], key) or self.send(self.servers[(number + 1) % 2], key)
            if answer is not None:
                self.accepted[key] = answer.json()["status"]
                number += 1

    def send(self, server: ServerProcess, key: str) -> Answer | None:
        """Send a delivery on a connection of its own; return the answer, unless it was refused."""
        connection = Connection(server.url)
        try:
            answer = connection.deliver("/triggers/gh", delivery=key)
        except OSError:
            return None
        finally:
            connection.close()
        return answer if answer.status == 200 else None

    def wait_further(self) -> None:
        """Wait until further deliveries are accepted."""
        count = len(self.accepted) + 6
        wait_until(lambda: len(self.accepted) >= count, "further deliveries to be accepted")


class RollingTests(UpgradeCase):
    def setUp(self) -> None:
        """Start a PostgreSQL of the test's own, and copy the package as another version."""
        super().setUp()
        self.postgres = own_postgres(self)
        source = Path(harn.__file__).parent
        self.installed = self.directory / "installed"
        shutil.copytree(source, self.installed / "harn", ignore=shutil.ignore_patterns("dropin.cache"))
        self.install(BEFORE)
        path = os.pathsep.join((str(self.installed), self.environ["PYTHONPATH"]))
        self.environ = {**self.environ, "PYTHONPATH": path}

    def install(self, version: str) -> None:
        """Replace the installed version."""
        text = Path(harn.__file__).read_text()
        self.assertIn(LINE, text)
        self.replace("installed/harn/__init__.py", text.replace(LINE, f'__version__ = "{version}"'))

    @contextmanager
    def sending(self, *servers: ServerProcess) -> Iterator[Sender]:
        """Run a sender."""
        sender = Sender(*servers)
        sender.start()
        try:
            yield sender
        finally:
            sender.over.set()
            sender.join()

    def listed(self, server: ServerProcess) -> list[tuple[str, str, bool]]:
        """Return version, status and readiness of the servers, as one lists them, in the order of versions."""
        found = server.admin("GET", "/admin/servers").json()["servers"]
        return sorted((each["version"], each["status"], each["not_ready"] == []) for each in found)

    def wait_listed(self, versions: list[str], *servers: ServerProcess) -> None:
        """Wait until each server lists servers of these versions, all serving and ready."""
        expected = sorted((version, "serving", True) for version in versions)
        for server in servers:
            wait_until(lambda server=server: self.listed(server) == expected, f"{versions}; {self.listed(server)}")

    def test_one_by_one(self) -> None:
        """
        Two versions run side by side, one reload is adopted by both, and no delivery is refused by both or lost: while
        one server is restarted, and while the other is upgraded in place.
        """
        self.write_handlers()
        self.write_manifest(KEYED, held_trigger("slow"), head=f'[orchestrator]\nstore = "{self.postgres.url()}"\n')
        first, second = self.serve(), self.serve(state_dir="state2")
        self.wait_listed([BEFORE, BEFORE], first, second)
        with self.sending(first, second) as sender:
            sender.wait_further()
            self.install(harn.__version__)
            self.assertEqual(second.terminate(), 0, second.stderr)
            sender.wait_further()
            second = sender.servers[1] = self.serve(state_dir="state2")
            self.wait_listed([BEFORE, harn.__version__], first, second)
            self.a_reload_of_both(first, second)
            sender.wait_further()
            self.an_upgrade_in_place(first, second)
            sender.wait_further()
        self.assertEqual(set(sender.accepted.values()), {"accepted"})
        self.wait_handled("h0", "r0", *sender.accepted)
        kinds = [each["kind"] for each in second.records("orchestrator.servers")]
        self.assertEqual((kinds.count("server_started"), kinds.count("server_ended")), (4, 2))

    def a_reload_of_both(self, first: ServerProcess, second: ServerProcess) -> None:
        """Reload the server that was upgraded: the other one adopts that, too."""
        self.write_handlers("two")
        report = self.assert_reloaded(second.reload(), modified=["gh", "slow"])
        self.assertEqual([each["status"] for each in report["servers"]], ["adopted"] * 2)
        self.assert_accepted(first.deliver("/triggers/gh", delivery="r0"))
        self.assertEqual({each["version"] for each in self.wait_handled("r0")}, {"two"})

    def an_upgrade_in_place(self, first: ServerProcess, second: ServerProcess) -> None:
        """Upgrade the other server by a signal, while it runs a delivery, which its old program finishes."""
        self.assert_accepted(first.deliver("/triggers/slow", delivery="h0"), "slow")
        self.wait_begun("h0")
        self.upgrade(first, first.pid)
        self.release()
        self.assertEqual(self.old_status(first), 0)
        self.wait_listed([harn.__version__] * 2, first, second)
