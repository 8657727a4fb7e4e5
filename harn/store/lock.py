"""The state directory's lock: one server at a time, for as long as its process lives."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import time

from harn.errors import StateDirectoryUnusable

LOCK_FILE = "lock"


class StateDirectoryLock:
    """
    Holds a state directory for this process, by ``flock`` on its file ``lock``.

    The kernel lets go of it when the process dies, however it dies. The file stays: taking it away would let two
    servers lock two files of one name. Children do not inherit the lock; a fork that goes on as the server does, so
    a daemon may fork before or after `acquire`, but the process id in the file is that of the process that acquired.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """
        Make the directory if it is missing, lock it, and write this process's id into the lock.

        :raises StateDirectoryUnusable: another server holds it, or it is no directory that we can write to.
        """
        if self._descriptor is not None:
            return
        _ensure_directory(self.directory)
        path = os.path.join(self.directory, LOCK_FILE)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.directory, error) from error
        try:
            _lock(descriptor)
            _write_pid(descriptor)
        except BlockingIOError:
            pid = _read_pid(descriptor)
            os.close(descriptor)
            raise StateDirectoryUnusable(
                f"the state directory {self.directory} is held by another server (pid {pid or 'unknown'}); "
                "stop that server, or give this one a state directory of its own"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise _unusable(self.directory, error) from error
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int | None:
        """The lock's, for a process that is to hold the directory together with this one; None when it is not held."""
        return self._descriptor

    def inherit(self, descriptor: int) -> None:
        """
        Hold the directory together with the process that gave us its lock: it is held until both have let go.

        The process id in the file stays the other's until `claim`.

        :raises StateDirectoryUnusable: the descriptor is not that of this directory's lock.
        """
        path = os.path.join(self.directory, LOCK_FILE)
        try:
            os.set_inheritable(descriptor, False)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held already: nothing happens
            is_ours = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except OSError as error:
            raise _unusable(self.directory, error) from error
        if not is_ours:
            raise StateDirectoryUnusable(f"the lock that was inherited is not that of {self.directory}; start anew")
        self._descriptor = descriptor

    def claim(self) -> None:
        """
        Write this process's id into a lock that is held.

        :raises StateDirectoryUnusable: it cannot be written.
        """
        assert self._descriptor is not None
        try:
            _write_pid(self._descriptor)
        except OSError as error:
            raise _unusable(self.directory, error) from error

    def release(self) -> None:
        """Let go of the directory; a process that holds it with this one still does. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def holder(directory: str) -> int | None:
    """
    Give the process id of the server that holds ``directory``; None when none does, 0 when its id is not known.
    """
    try:
        descriptor = os.open(os.path.join(directory, LOCK_FILE), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    """Take the lock; try again for a moment, since `holder` takes it, too, to see whether it can."""
    for wait in (0.01, 0.02, 0.05):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ensure_directory(directory: str) -> None:
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StateDirectoryUnusable(
            f"the state directory {directory} cannot be used: {error.filename} is a file, not a directory"
        ) from error
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: str, error: OSError) -> StateDirectoryUnusable:
    if error.errno in (errno.EACCES, errno.EPERM):
        return StateDirectoryUnusable(
            f"the state directory {directory} cannot be written by user {_user(os.geteuid())}{_owned(directory)}; "
            "change its owner, or choose another"
        )
    if error.errno == errno.EISDIR:
        return StateDirectoryUnusable(f"the state directory {directory} holds a directory named {LOCK_FILE}; remove it")
    return StateDirectoryUnusable(f"the state directory {directory} cannot be used: {error.strerror}")


def _owned(directory: str) -> str:
    try:
        owner = os.stat(directory).st_uid
    except OSError:
        return ""
    return "" if owner == os.geteuid() else f" (it belongs to {_user(owner)})"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _write_pid(descriptor: int) -> None:
    text = f"{os.getpid()}\n".encode("ascii")
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))


def _read_pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).partition(b"\n")[0].strip()
    return int(text) if text.isdigit() else 0
