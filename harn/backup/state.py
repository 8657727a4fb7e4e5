"""The state directory, for backups: what of it goes into one, and which directory something is restored into."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import harn
from harn.errors import BackupFailed, BackupRefused, StateDirectoryUnusable
from harn.store.backup import Origin
from harn.store.lock import LOCK_FILE, StateDirectoryLock
from harn.store.sqlite.copying import Copied, refuse_foreign, restore

DATABASE = "events.sqlite"
DIGEST_KEY = "digest.key"
"""The key that makes digests of secrets useless to others."""

_OF_THE_SERVER = ("events.sqlite", "orchestrator-state.json", "running-", LOCK_FILE, "token", DIGEST_KEY)
"""How names of the server's own files begin."""
_OF_THE_SYSTEM = (LOCK_FILE, "lost+found")
"""What an empty state directory may hold."""


def database_of(state_dir: str) -> str:
    """Return the path of the event log."""
    return os.path.join(state_dir, DATABASE)


def origin_now(state_dir: str, now: float) -> Origin:
    """Return what a backup of ``state_dir`` that begins now holds beside the event log."""
    key: bytes | None = None
    with suppress(FileNotFoundError), open(os.path.join(state_dir, DIGEST_KEY), "rb") as file:
        key = file.read()
    return Origin(made_at=now, harn_version=harn.__version__, host=socket.gethostname(), digest_key=key)


def check_place(file: str, state_dir: str) -> None:
    """
    Refuse to write a backup under the name of one of the server's own files.

    :raises BackupRefused: it is one, or a directory.
    """
    directory, name = os.path.split(file)
    if not name or os.path.isdir(file):
        raise BackupRefused(f"{file} is a directory; give the backup a name in it")
    if not os.path.isdir(directory or "."):
        raise BackupRefused(f"there is no directory {directory}; make it, or choose another place")
    if os.path.realpath(directory or ".") == os.path.realpath(state_dir) and name.startswith(_OF_THE_SERVER):
        raise BackupRefused(f"{file} is the name of a file of the server's own; choose another name")


def restore_into(state_dir: str, file: str) -> Copied:
    """
    Make an empty state directory, which is made if it is missing, one that a server can go on from.

    :raises BackupRefused: it is not empty, or the file is not a backup, or a newer version's.
    :raises BackupFailed: the backup is not sound, or there is no room; the directory is as before.
    :raises StateDirectoryUnusable: a server holds it, or it cannot be used.
    """
    refuse_foreign(file)  # before the directory is made
    refuse_filled(state_dir)
    lock = StateDirectoryLock(state_dir)
    lock.acquire()
    try:
        refuse_filled(state_dir)
        copied = restore(file, database_of(state_dir))
        if copied.origin is not None and copied.origin.digest_key is not None:
            try:
                _write_key(state_dir, copied.origin.digest_key)
            except OSError as error:
                for name in (DATABASE, DIGEST_KEY):
                    with suppress(OSError):
                        os.unlink(os.path.join(state_dir, name))
                raise BackupFailed(
                    f"nothing restored from {file}: {DIGEST_KEY}: {error.strerror}; try again"
                ) from error
        return copied
    finally:
        lock.release()


def refuse_filled(state_dir: str) -> None:
    """
    Refuse a directory that something is in.

    :raises BackupRefused: names what is there, and says what to do.
    :raises StateDirectoryUnusable: it is not a directory, or cannot be read.
    """
    try:
        found = sorted(name for name in os.listdir(state_dir) if name not in _OF_THE_SYSTEM)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateDirectoryUnusable(f"the state directory {state_dir} cannot be read: {error.strerror}") from error
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise BackupRefused(
            f"{state_dir} is not empty ({shown}), and a backup is restored into an empty state directory only; stop"
            f" the server on it if one runs and move it away (mv {state_dir} {state_dir}.before), or name another"
            " with --state-dir"
        )


def _write_key(state_dir: str, key: bytes) -> None:
    descriptor = os.open(
        os.path.join(state_dir, DIGEST_KEY), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
