"""
The state directory's lock: one server at a time, for as long as its process lives; and which server runs on it, as its
files tell other processes. For commands that must start fast, nothing of Twisted is imported here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import time
from contextlib import suppress
from typing import Any

import msgspec

from harn.errors import EventLogGone, StateDirectoryUnusable

LOCK_FILE = "lock"

_CANNOT_LOCK = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that cannot lock a directory, some network ones for example."""
_KERNEL_LOCKS = "/proc/locks"


class StateDirectoryLock:
    """
    Holds a state directory for this process, by ``flock`` on the directory itself and on its file ``lock``.

    The kernel releases both when the process dies, however it dies. The lock on the directory cannot be taken away by
    removing a file; it counts for every path, mount and container through which the directory is seen. The one on the
    file names its holder, and is the only one where directories cannot be locked. Children
    inherit neither; a fork that continues as the server does, so a daemon may fork before or after `acquire`, but the
    process id in the file is that of the process that acquired.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._descriptor: int | None = None
        self._of_directory: int | None = None

    def acquire(self) -> None:
        """
        Make the directory if it is missing, lock it, and write this process's id into the lock.

        :raises StateDirectoryUnusable: another server holds it, or it is not a directory that we can write to.
        """
        if self._descriptor is not None:
            return
        _ensure_directory(self.directory)
        try:
            self._of_directory = _lock_directory(self.directory)
            self._descriptor = _lock_file(self.directory)
        except BlockingIOError:
            self.release()
            raise _held(self.directory, _pid_of_holder(self.directory)) from None
        except OSError as error:
            self.release()
            raise _unusable(self.directory, error) from error

    @property
    def descriptor(self) -> int | None:
        """The file's, for a process that is to hold the directory together with this one; None when it is not held."""
        return self._descriptor

    @property
    def of_directory(self) -> int | None:
        """The same of the directory itself; None where directories cannot be locked, too."""
        return self._of_directory

    def inherit(self, descriptor: int, of_directory: int | None = None) -> None:
        """
        Hold the directory together with the process that gave us its lock: it is held until both have released it.

        The process id in the file stays the other's until `claim`.

        :param of_directory: None from a program that locked the file alone; then we lock the directory.
        :raises StateDirectoryUnusable: a descriptor is not that of this directory or its lock.
        """
        path = os.path.join(self.directory, LOCK_FILE)
        given = {path: descriptor} if of_directory is None else {path: descriptor, self.directory: of_directory}
        try:
            for place, each in given.items():
                os.set_inheritable(each, False)
                fcntl.flock(each, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held already: nothing happens
                if not os.path.samestat(os.fstat(each), os.stat(place)):
                    raise StateDirectoryUnusable(
                        f"the lock that was inherited is not that of {self.directory}; start again"
                    )
            self._of_directory = _lock_directory(self.directory) if of_directory is None else of_directory
        except OSError as error:
            raise _unusable(self.directory, error) from error
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

    def check(self) -> None:
        """
        Check that this process still holds the directory; a lock file that was removed or replaced is made again.

        Blocks: not for the reactor's thread.

        :raises EventLogGone: the directory was moved or replaced, or another server holds the new lock file.
        :raises OSError: it cannot be looked at.
        """
        descriptor, of_directory = self._descriptor, self._of_directory
        if descriptor is None:
            return
        if of_directory is not None and not _is_at(of_directory, self.directory):
            raise EventLogGone(
                f"the state directory {self.directory} was moved or replaced while the server (pid {os.getpid()}) used"
                " it: nothing is accepted until a restart; move it back, then restart the server"
            )
        if _is_at(descriptor, os.path.join(self.directory, LOCK_FILE)):
            return
        try:
            fresh = _lock_file(self.directory)
        except BlockingIOError:
            if of_directory is not None:
                return  # a program that holds the directory together with this one was faster
            raise EventLogGone(
                f"the lock of the state directory {self.directory} was replaced, and another server"
                f" (pid {_pid_of_holder(self.directory) or 'unknown'}) holds the new one: nothing is accepted until a"
                f" restart; stop one of the two (this one is pid {os.getpid()})"
            ) from None
        os.dup2(fresh, descriptor, inheritable=False)
        os.close(fresh)
        from twisted.logger import Logger  # here, since commands look at the lock and must start fast

        log = Logger(namespace="harn.store")
        log.warn("the lock file of {directory} was removed or replaced; it is made again", directory=self.directory)

    def release(self) -> None:
        """Release the directory; a process that holds it with this one still does. Idempotent."""
        held = self._descriptor, self._of_directory
        self._descriptor = self._of_directory = None
        for descriptor in held:
            if descriptor is not None:
                os.close(descriptor)


def holder(directory: str) -> int | None:
    """
    Return the process id of the server that holds ``directory``; None when none does, 0 when its id is not known.
    """
    for place in (os.path.join(directory, LOCK_FILE), directory):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_of_holder(directory)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return None


def refuse_held(directory: str) -> None:
    """
    Raise an error if a server holds ``directory`` already, before this process has loaded what a server needs.

    :raises StateDirectoryUnusable: one holds it. Whoever passes must lock the directory all the same.
    """
    pid = holder(directory)
    if pid is not None:
        raise _held(directory, pid)


def _held(directory: str, pid: int) -> StateDirectoryUnusable:
    return StateDirectoryUnusable(
        f"the state directory {directory} is held by another server (pid {pid or 'unknown'}); "
        "stop that server, or give this one a state directory of its own"
    )


def _lock_directory(directory: str) -> int | None:
    """
    Lock the directory itself; None where that cannot be done.

    :raises BlockingIOError: another process holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _CANNOT_LOCK:
            return None
        raise
    return descriptor


def _lock_file(directory: str) -> int:
    """
    Lock the file, and write this process's id into it.

    :raises BlockingIOError: another process holds it.
    """
    descriptor = os.open(os.path.join(directory, LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        _write_pid(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    """Acquire the lock; retry for a moment, since `holder` acquires it, too, to test it."""
    for wait in (0.01, 0.02, 0.05):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _pid_of_holder(directory: str) -> int:
    """Return the process id of who holds the directory, 0 when nothing says it: the file does, or else the kernel."""
    try:
        descriptor = os.open(os.path.join(directory, LOCK_FILE), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _pid_by_kernel(directory)
    try:
        return _read_pid(descriptor) or _pid_by_kernel(directory)
    finally:
        os.close(descriptor)


def _pid_by_kernel(directory: str) -> int:
    """Look for the directory's number in the kernel's list of locks, whose lines end in pid, device:inode, range."""
    try:
        inode = str(os.stat(directory).st_ino)
        with open(_KERNEL_LOCKS, encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) == 8 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                    return int(words[4]) if words[4].isdigit() else 0
    except OSError:
        pass
    return 0


def _ensure_directory(directory: str) -> None:
    try:
        for each in _missing(os.path.abspath(directory)):
            with suppress(FileExistsError):  # another process was faster
                os.mkdir(each, 0o700)
        if not os.path.isdir(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), directory)
    except (FileExistsError, NotADirectoryError) as error:
        raise StateDirectoryUnusable(
            f"the state directory {directory} cannot be used: {error.filename} is a file, not a directory"
        ) from error
    except OSError as error:
        raise _unusable(directory, error) from error


def _missing(directory: str) -> list[str]:
    """Return the directories that are missing down to this one, the highest first."""
    found: list[str] = []
    while not os.path.lexists(directory):
        found.insert(0, directory)
        directory = os.path.dirname(directory)
    return found


def _unusable(directory: str, error: OSError) -> StateDirectoryUnusable:
    if error.errno in (errno.EACCES, errno.EPERM):
        return StateDirectoryUnusable(
            f"the state directory {directory} cannot be written by user {user_name(os.geteuid())}{_owned(directory)}; "
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
    return "" if owner == os.geteuid() else f" (it belongs to {user_name(owner)})"


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
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


STATE_FILE = "orchestrator-state.json"
RUNNING = "running"
STOPPED = "stopped"


def state_path(state_dir: str) -> str:
    """Return the path of the state file."""
    return os.path.join(state_dir, STATE_FILE)


def read_state(state_dir: str) -> dict[str, Any] | None:
    """Read the state file of a server; None for a file that is missing, unreadable or something else."""
    try:
        with open(state_path(state_dir), "rb") as file:
            document = msgspec.json.decode(file.read())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def running_url(state_dir: str) -> str | None:
    """
    Return the URL of the admin API of the server that runs on ``state_dir``, None when there is none.

    A server that was killed leaves a file that says it runs, and its number may be another process's by now: the lock
    decides. It is checked last, when it is most likely held, so that looking does not keep a server from taking it.
    """
    state = read_state(state_dir)
    if state is None or state.get("status") != RUNNING:
        return None
    pid, url = state.get("pid"), state.get("admin_url") or state.get("listener_url")
    if not isinstance(pid, int) or not isinstance(url, str) or not is_alive(pid) or holder(state_dir) is None:
        return None
    return url


def served_manifest(state_dir: str) -> str | None:
    """Return the path of the manifest that the server on ``state_dir`` serves, or served last; None if not known."""
    served = (read_state(state_dir) or {}).get("manifest_path")
    return served if isinstance(served, str) else None


def is_alive(pid: int) -> bool:
    """Return whether a process has this number, of any user."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
