"""Changes of deliveries where no server runs: this command takes the state directory's lock, and does it itself."""

from __future__ import annotations

import os
from typing import Any

from attrs import frozen
from msgspec import to_builtins
from twisted.internet.defer import Deferred

from harn.cli.operations import Answered
from harn.cli.running import run_until
from harn.clocks import WallClock, use_monotonic_time
from harn.deliveries.change_operations import ChangeMany, Done
from harn.deliveries.offline import change_offline
from harn.errors import StateDirectoryUnusable
from harn.orchestrator.running import read_state, state_path
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.store import DATABASE_FILE, SQLiteStore


@frozen
class StoreTarget:
    """
    The deliveries of a state directory on which no server runs.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """
        See `harn.cli.change_target.ChangeTarget.change`. A rate is for a server: here nothing runs yet.

        :raises StateDirectoryUnusable: there is no event log, or a server holds the directory.
        """
        from twisted.internet import reactor

        path = os.path.join(self.state_dir, DATABASE_FILE)
        if not os.path.exists(path):
            raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
        lock = StateDirectoryLock(self.state_dir)
        lock.acquire()
        use_monotonic_time(reactor)
        try:
            done = run_until(reactor, lambda: Deferred.fromCoroutine(self._change(reactor, lock, operation, wanted)))
        finally:
            lock.release()
        return Answered(done, to_builtins(done))

    async def _change(self, reactor: Any, lock: StateDirectoryLock, operation: str, wanted: ChangeMany) -> Done:
        wall = WallClock()
        state = read_state(self.state_dir) or {}
        triggers = {str(each.get("id")) for each in state.get("triggers", ()) if isinstance(each, dict)}
        store = SQLiteStore.at(
            os.path.join(self.state_dir, DATABASE_FILE),
            reactor,
            wall=wall,
            guard=lock.check,
            evidence=(state_path(self.state_dir),),
        )
        store.lists.nothing_runs = True
        await store.open()
        try:
            return await change_offline(reactor, wall, store, triggers, operation, wanted)
        finally:
            await store.close()
