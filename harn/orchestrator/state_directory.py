"""
The state directory: closed to other users, and the key in it that makes digests of secrets useless to others.

Events, tokens and what handlers log are in its files. Each file is made with mode 0600, and each directory with 0700.
`make_private` corrects the modes of files of earlier versions and copies, and warns about the directory itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from secrets import token_bytes

from twisted.logger import Logger

from harn.backup.state import DIGEST_KEY

log = Logger(namespace="harn")

OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FILES = (
    *("events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "events.sqlite.mark"),
    *("lock", "orchestrator-state.json", "orchestrator-state.json.tmp", DIGEST_KEY, "token", "running-*"),
)
_LOGS = ("orchestrator.log", "orchestrator.log.*")
LOGS = "logs"


def make_private(state_dir: str) -> None:
    """
    Remove other users' access to the server's files, and warn about a directory that they can enter. Blocks.

    Other names, and anything but regular files, are left alone; a file that cannot be changed is warned
    about.
    """
    for path in _ours(state_dir):
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


def _ours(state_dir: str) -> Iterator[str]:
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
    Return the key of ``state_dir``. Blocks, once, at start.

    :raises OSError: it can be neither read nor written.
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
