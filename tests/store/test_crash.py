"""Real processes: what was acknowledged survives a kill, and a disk that fills up corrupts nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

WRITER = """
import sys
from twisted.internet.defer import gatherResults
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import StoreClock, accept_of, dedupe, new_delivery, settlement_of
clock = StoreClock()
store = SQLiteStore.at(sys.argv[1], clock)
clock.result_of(store.open())
number = 0
while True:
    names = [f"e{number + n}" for n in range(7)]
    number += 7
    units = [store.inbox.accept(accept_of(new_delivery(name, claim=dedupe(name)))) for name in names]
    ids = [ids[0] for ids in clock.result_of(gatherResults(units))]
    clock.result_of(store.deliveries.settle(settlement_of(ids[0])))
    print(*ids, flush=True)
"""

FILLER = """
import resource, sys
from harn.errors import EventLogUnavailable
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import NOW, StoreClock, accept_of, dedupe, new_delivery
clock = StoreClock()
store = SQLiteStore.at(sys.argv[1], clock)
clock.result_of(store.open())
def accept(name):
    delivery = new_delivery(name, body=bytes(20000), claim=dedupe(name))
    return clock.result_of(store.inbox.accept(accept_of(delivery)))
resource.setrlimit(resource.RLIMIT_FSIZE, (300000, resource.RLIM_INFINITY))
kept = []
try:
    for number in range(1000):
        kept += accept(f"e{number}")
except EventLogUnavailable as error:
    print("failed", number, store.available())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
clock.result_of(store.heartbeat(NOW))
kept += accept(f"e{number}")
print("again", store.available(), kept == list(range(1, number + 2)))
clock.result_of(store.close())
"""


class CrashTests(SynchronousTestCase):
    def start(self, program: str) -> Any:
        directory = self.mktemp()
        os.makedirs(directory)
        self.path = os.path.abspath(os.path.join(directory, "events.sqlite"))
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        child: Any = subprocess.Popen(
            [sys.executable, "-c", program, self.path], stdout=subprocess.PIPE, text=True, env=environ
        )
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_kill_loses_nothing_acknowledged(self) -> None:
        """After kill -9 in the midst of writing, all that was acknowledged is there, with its claims, and sound."""
        child = self.start(WRITER)
        acknowledged = [int(number) for _ in range(40) for number in child.stdout.readline().split()]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(number) for number in child.stdout.read().split()]
        self.assertEqual(child.wait(), -signal.SIGKILL)
        self.assertEqual(len(set(acknowledged)), len(acknowledged))
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        kept = {number for (number,) in connection.execute("SELECT id FROM deliveries JOIN events USING (id)")}
        self.assertGreaterEqual(len(kept), 280)
        self.assertEqual(set(acknowledged) - kept, set())
        (claims,) = connection.execute("SELECT count(*) FROM claims").fetchone()
        self.assertEqual(claims, len(kept))
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def test_full_disk_and_room_again(self) -> None:
        """When no file may grow, units fail; when they may again, the store continues with the next id."""
        child = self.start(FILLER)
        output, _ = child.communicate(timeout=60)
        failed, again = output.splitlines()
        self.assertRegex(failed, r"^failed [1-9]\d* False$")
        self.assertEqual(again, "again True True")
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
