"""
The state directory, closed to other users: the key for digests of secrets, and the state file, with the server's
status.

Its files hold events, tokens and what handlers log. Each file is made with mode 0600, and each directory with 0700.
`make_private` corrects the modes of files that earlier versions made or that were copied, and warns about the directory
itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from secrets import token_bytes

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.backup.backups import DIGEST_KEY
from harn.lifecycle import Lifecycle, VersionEnded
from harn.orchestrator.status import ServerStatus
from harn.rollout.model import RolloutRecorded
from harn.waiting import ReactorThreads, shield

log = Logger(namespace="harn")


OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FILES = (
    *("events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "events.sqlite.mark"),
    *("lock", "store", "orchestrator-state.json", "orchestrator-state.json.tmp", DIGEST_KEY, "token", "running-*"),
)
_LOGS = ("orchestrator.log", "orchestrator.log.*")
LOGS = "logs"


def make_private(state_dir: str) -> None:
    """
    Remove other users' access to the server's files, and warn about a directory that they can enter. Blocks.

    Files with other names, and anything but regular files, are not changed. A warning names each file whose mode cannot
    be changed.
    """
    for path in own_files(state_dir):
        try:
            mode = os.lstat(path).st_mode
            if mode & OTHERS:
                os.chmod(path, stat.S_IMODE(mode) & ~OTHERS)
        except OSError as error:
            log.warn(
                "others can use {path} (mode {mode}), and that cannot be changed: {why}",
                path=path,
                mode=_mode_of(path),
                why=error.strerror,
            )
    if os.stat(state_dir).st_mode & OTHERS:
        log.warn(
            "others can enter the state directory {path} (mode {mode}), which holds events and tokens;"
            " type: chmod 700 {path}",
            path=state_dir,
            mode=_mode_of(state_dir),
            announce=True,
        )


def own_files(state_dir: str) -> Iterator[str]:
    """Yield the paths of the server's own files, of its log directory, and of the log files in that directory."""
    yield from _named(state_dir, _FILES)
    logs = os.path.join(state_dir, LOGS)
    if os.path.isdir(logs) and not os.path.islink(logs):
        yield logs
        yield from _named(logs, _LOGS)


def _named(directory: str, patterns: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and any(fnmatchcase(entry.name, each) for each in patterns):
                yield entry.path


def _mode_of(path: str) -> str:
    try:
        return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"
    except OSError:
        return "unknown"


SIZE = 32


def read_or_make_key(state_dir: str) -> bytes:
    """
    Return the key of ``state_dir``. Blocks; called once, at the start.

    :raises OSError: the key can be neither read nor written.
    """
    path = Path(state_dir) / DIGEST_KEY
    try:
        key = path.read_bytes()
        if len(key) == SIZE:
            return key
    except FileNotFoundError:
        pass
    key = token_bytes(SIZE)
    beside = path.with_suffix(".tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    beside.replace(path)
    return key


INTERVAL = 1.0
"""The shortest time in seconds between two replacements that no caller waits for."""


def replace_file(path: str, data: bytes) -> None:
    """
    Replace the content of a file with ``data``, atomically. Blocks.

    The file is not synced to disk: it describes a running server, and none runs after a power failure.

    :raises OSError: the file could not be replaced and is unchanged.
    """
    beside = path + ".tmp"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # a file that a crash left may have another mode
            file.write(data)
        os.replace(beside, path)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise


def stamp_of(path: str) -> tuple[int, ...] | None:
    """Return a value that changes when a file is replaced or written to; None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class StateFileKeeper(TimerService):
    """Checks every second whether the state file is still the one that this server wrote; see `StateFile.keep`."""

    def __init__(self, clock: IReactorTime, state_file: StateFile) -> None:
        super().__init__(INTERVAL, lambda: Deferred.fromCoroutine(state_file.keep()))  # type: ignore[no-untyped-call]
        self.clock: IReactorTime = clock


class StateFile:
    """
    The state file, which each write replaces with the current status of the server.

    Writes run one after another, so that the newest status remains.

    :ivar path: the path of the file.
    :ivar is_ours: True while this program writes the file; False while another program does.
    """

    def __init__(self, path: str, clock: IReactorTime, threads: ReactorThreads, status: ServerStatus) -> None:
        self.path = path
        self.is_ours = True
        self._clock = clock
        self._threads = threads
        self._status = status
        self._lock = DeferredLock()
        self._later: IDelayedCall | None = None
        self._written_at = float("-inf")
        self._stamp: tuple[int, ...] | None = None  # the file's stamp after the last write
        self._is_in_trouble = False

    async def save(self) -> None:
        """
        Replace the file now.

        Cancelling the wait does not stop the write, so that two threads never write at the same time.

        :raises OSError: the file could not be written and is unchanged.
        """
        await shield(self._replace(), self._not_written)

    def _not_written(self, failure: Failure) -> None:
        log.failure("the state file {path} could not be written", failure, path=self.path)

    async def _replace(self) -> None:
        """Replace the file after all earlier replacements."""
        await self._lock.acquire()
        try:
            if not self.is_ours:
                return
            self._written_at = self._clock.seconds()
            if self._later is not None:  # this write includes it
                self._later.cancel()
                self._later = None
            snapshot = self._status.snapshot()

            def replace() -> None:
                replace_file(self.path, snapshot.encode())
                self._stamp = stamp_of(self.path)

            await self._threads.call(replace)
        finally:
            self._lock.release()

    async def keep(self) -> None:
        """Replace the file if another program removed or changed it; log an error only once."""
        kept: list[bool] = []
        await self._lock.acquire()
        try:
            # Compared under the lock: a replacement changes both the file and the stamp.
            await self._threads.call(lambda: kept.append(self._stamp in (None, stamp_of(self.path))))
        finally:
            self._lock.release()
        if not self.is_ours or kept == [True]:
            return
        try:
            await self.save()
        except OSError as error:
            if not self._is_in_trouble:
                log.warn("the state file {path} is lost: {why}; commands need --admin-url", path=self.path, why=error)
            self._is_in_trouble = True
        else:
            self._is_in_trouble = False
            log.warn("the state file {path} was removed or changed; it is written again", path=self.path)

    def follow(self, lifecycle: Lifecycle) -> None:
        """Subscribe to the events that change the status and that no caller waits for; each replaces the file soon."""
        for kind in (VersionEnded, RolloutRecorded):
            lifecycle.subscribe(kind, self._changed)

    def _changed(self, event: object) -> None:
        self.save_soon()

    def save_soon(self) -> None:
        """Replace the file within `INTERVAL` seconds, once for all calls until then; a failure is logged."""
        if self._later is None:
            wait = max(0.0, self._written_at + INTERVAL - self._clock.seconds())
            self._later = self._clock.callLater(wait, self._save_later)

    async def close(self) -> None:
        """Cancel the planned replacement, and wait for the write in progress."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        await self._lock.acquire()
        self._lock.release()

    def _save_later(self) -> None:
        self._later = None
        Deferred.fromCoroutine(self.save()).addErrback(
            lambda failure: log.failure("the state file {path} cannot be written", failure, path=self.path)
        )
