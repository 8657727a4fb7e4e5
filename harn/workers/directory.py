"""
The state directory of a supervisor: commands find a running server there as on any other.

The state file there is a link to that of a worker which serves, and the token is one that all workers accept. The
digest key is the first worker's, under whose name a command changes the store while no worker runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct
from twisted.logger import Logger

from harn.errors import StateDirectoryUnusable
from harn.options.readers import MOST_WORKERS
from harn.store.lock import STATE_FILE, holder
from harn.workers.assignment import name_of, worker_directory

log = Logger(namespace="harn")

DIGEST_KEY = "digest.key"
PATIENCE = 15.0
"""Seconds that workers of a supervisor that was killed may take to end; see `harn.workers.link.LAST`."""


class SharedDirectory(Struct, frozen=True):
    """The state directory, which is locked."""

    path: str

    def show(self, number: int) -> None:
        """Make commands ask this worker. Blocks for a moment: no request waits for the supervisor."""
        try:
            self._link(STATE_FILE, number)
            if not os.path.lexists(os.path.join(self.path, DIGEST_KEY)):
                self._link(DIGEST_KEY, 1)
        except OSError as error:
            log.warn(
                "commands on {path} may not find {worker}: {why}",
                path=self.path,
                worker=name_of(number),
                why=str(error),
            )

    def _link(self, name: str, number: int) -> None:
        """Put a link to a worker's file in the place of whatever has this name."""
        beside = os.path.join(self.path, f"{name}.link")
        with suppress(FileNotFoundError):
            os.unlink(beside)
        os.symlink(os.path.join(name_of(number), name), beside)
        os.replace(beside, os.path.join(self.path, name))


def wait_for_earlier(path: str, pause: Callable[[float], object] = time.sleep) -> None:
    """
    Wait until no worker of an earlier supervisor runs on a state directory. Blocks: before the reactor runs.

    :raises StateDirectoryUnusable: one still does, after `PATIENCE` seconds.
    """
    for _ in range(int(PATIENCE / 0.1)):
        held = _held(path)
        if not held:
            return
        pause(0.1)
    raise StateDirectoryUnusable(
        f"{name_of(held[0])} of an earlier supervising process still runs (pid"
        f" {holder(worker_directory(path, held[0])) or 'unknown'}); end it, then start again"
    )


def _held(path: str) -> Sequence[int]:
    return [number for number in range(1, MOST_WORKERS + 1) if holder(worker_directory(path, number)) is not None]
