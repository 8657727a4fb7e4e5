"""Checks of the state directory: its permissions, its lock, the room and the speed of its disk, the limit of files."""

from __future__ import annotations

import os
import resource
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from harn.cli.doctor.model import Row, failure, format_size, ok, skipped, warning
from harn.cli.doctor.subject import Subject
from harn.listener.descriptors import MOST_FILES, connections_within
from harn.orchestrator.state_directory import OTHERS, own_files
from harn.processes import parent_and_start
from harn.store.lock import RUNNING, user_name

DIRECTORY, LOCK, DISK, SYNC, FILES = "state directory", "lock", "disk space", "fsync", "open files"


class DirectoryFacts(Struct, frozen=True, kw_only=True):
    """
    The permissions of the state directory, from the system.

    :ivar mode: the mode of the directory; None if there is no such path.
    :ivar is_directory: False if the path is a file.
    :ivar is_usable: this user may write to it and enter it; without one: to the nearest directory above.
    :ivar user: the user of this command.
    :ivar owner: the owner of the directory.
    :ivar is_held: a server uses it.
    :ivar open_files: paths of the server's files that others may read or write.
    """

    path: str
    mode: int | None
    is_directory: bool = True
    is_usable: bool = True
    user: str
    owner: str
    is_held: bool = False
    open_files: Sequence[str] = ()


def check_directory(subject: Subject) -> Iterator[Row]:
    """Check existence, permissions, and who else can enter."""
    yield from rows_of_directory(read_directory(subject))


def read_directory(subject: Subject) -> DirectoryFacts:
    """Read the permissions of the state directory and of the server's files in it."""
    path, user = subject.state_dir, user_name(os.geteuid())
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        above = os.path.dirname(path)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        usable = os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)
        return DirectoryFacts(path=path, mode=None, is_usable=usable, user=user, owner=user)
    is_directory = stat.S_ISDIR(found.st_mode)
    return DirectoryFacts(
        path=path,
        mode=stat.S_IMODE(found.st_mode),
        is_directory=is_directory,
        is_usable=os.access(path, os.R_OK | os.W_OK | os.X_OK),
        user=user,
        owner=user_name(found.st_uid),
        is_held=subject.pid is not None,
        open_files=tuple(open_to_others(path)) if is_directory else (),
    )


def open_to_others(state_dir: str) -> Iterator[str]:
    """Yield the server's files that other users may use."""
    with suppress(PermissionError):
        for path in own_files(state_dir):
            with suppress(FileNotFoundError):
                if os.lstat(path).st_mode & OTHERS:
                    yield path


def rows_of_directory(facts: DirectoryFacts) -> Iterator[Row]:
    """Return the finding about it."""
    path = facts.path
    if facts.mode is None:
        if facts.is_usable:
            hint = "`serve` makes it; if a server has run already, name its directory with --state-dir"
            yield warning(DIRECTORY, f"{path} does not exist yet", hint)
        else:
            hint = f"make it for the server's user, or name another with --state-dir: install -d -m 700 {path}"
            yield failure(DIRECTORY, f"{path} does not exist, and user {facts.user} cannot make it", hint)
    elif not facts.is_directory:
        yield failure(DIRECTORY, f"{path} is not a directory", "move the file away, or name another with --state-dir")
    elif not facts.is_usable:
        said = f"{path} cannot be used by user {facts.user} (it belongs to {facts.owner}, mode {facts.mode:04o})"
        hint = f"run this as {facts.owner}, as the server does, or change its owner: chown -R {facts.user} {path}"
        yield (warning if facts.is_held else failure)(DIRECTORY, said, hint)
    else:
        yield from _rows_of_permissions(facts, facts.mode)


def _rows_of_permissions(facts: DirectoryFacts, mode: int) -> Iterator[Row]:
    said = f"{facts.path} (user {facts.owner}, mode {mode:04o})"
    if mode & OTHERS:
        who = "all users" if mode & stat.S_IRWXO else "users of its group"
        what = "enter" if mode & (stat.S_IXGRP | stat.S_IXOTH) else "list"
        hint = f"it holds events and tokens: chmod 700 {facts.path}"
        yield warning(DIRECTORY, f"{said}: {who} can {what} it", hint)
    else:
        yield ok(DIRECTORY, f"{said}: only {facts.owner} can enter it")
    if facts.open_files:
        first = facts.open_files[0]
        more = f" and {len(facts.open_files) - 1} more files" if len(facts.open_files) > 1 else ""
        yield warning(DIRECTORY, f"other users can use {first}{more}", f"chmod -R go= {facts.path}")


def check_lock(subject: Subject) -> Iterator[Row]:
    """Check who holds the state directory."""
    served_by = (subject.state or {}).get("pid")
    supervisor = parent_and_start(served_by)[0] if isinstance(served_by, int) else 0
    yield row_of_lock(subject.pid, subject.state, supervisor)


def row_of_lock(pid: int | None, state: Mapping[str, Any] | None, supervisor: int = 0) -> Row:
    """
    Return the finding about the holder's process id (0: unknown, None: free) and the state file.

    :param supervisor: the parent of the process that the state file names: of several workers, it holds the directory.
    """
    status = None if state is None else state.get("status")
    if pid is None:
        if state is None:
            return ok(LOCK, "free: no server has run here")
        if status == RUNNING:
            hint = "start a server: it runs what is unfinished; `harn inspect` shows what there is"
            return warning(LOCK, f"free, but the last server (pid {state.get('pid')}) did not end cleanly", hint)
        return ok(LOCK, f"free: the last server ended at {state.get('stopped_at')}")
    who = f"pid {pid}" if pid else "a process that cannot be seen from here"
    if state is None or status != RUNNING or (pid and pid not in (state.get("pid"), supervisor)):
        hint = "it is starting or ending: wait a moment, and check again; `kill -HUP` of the process reloads it"
        return warning(LOCK, f"held by {who}, whose state file is missing or another's", hint)
    since = f"generation {state.get('generation')}, since {state.get('started_at')}"
    return ok(LOCK, f"held by {who}: harn {state.get('harn_version')}, {since}")


LITTLE, TOO_LITTLE = 1024**3, 64 * 1024**2
"""Free bytes below which a disk is worth a warning, and below which it is about to be full."""
FEW_INODES = 1000


def check_disk(subject: Subject) -> Iterator[Row]:
    """Check the room on the disk of the state directory."""
    if not os.path.isdir(subject.state_dir):
        yield skipped(DISK, "there is no state directory yet")
        return
    found = os.statvfs(subject.state_dir)
    inodes = found.f_favail if found.f_files else None
    yield row_of_disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes)


def row_of_disk(free: int, total: int, inodes: int | None) -> Row:
    """Return the finding about free and all bytes, and of how many files may still be made; None: any number."""
    share = 100.0 * free / total if total else 0.0
    said = f"{format_size(free)} of {format_size(total)} are free ({share:.0f} %)"
    if inodes is not None and inodes < FEW_INODES:
        said += f", and only {inodes} more files can be made"
    hint = "make room, or shorten [orchestrator.retention]; a full disk is answered with 503, and nothing is lost"
    if free < TOO_LITTLE or inodes == 0:
        return failure(DISK, said, hint)
    return warning(DISK, said, hint) if free < LITTLE or (inodes or FEW_INODES) < FEW_INODES else ok(DISK, said)


SYNCS, PAGE, LONGEST_SYNCS = 5, 4096, 2.0
"""How often a page of so many bytes is synced, and after how many seconds no more of them are."""
SLOW, TOO_SLOW = 0.05, 1.0
"""Seconds of one sync that are worth a warning, and that are a failure."""


def check_sync(subject: Subject) -> Iterator[Row]:
    """Measure how long the disk takes to keep a page, on a file of its own, which is removed."""
    if not os.path.isdir(subject.state_dir):
        yield skipped(SYNC, "there is no state directory yet")
        return
    try:
        times = time_syncs(subject.state_dir)
    except OSError as error:
        said = f"a file in {subject.state_dir} cannot be written: {error.strerror}"
        yield failure(SYNC, said, "make room on its disk, or run this as the server's user")
        return
    yield row_of_syncs(times)


def time_syncs(directory: str) -> Sequence[float]:
    """
    Write and sync a page a few times; return how long each took, in seconds.

    :raises OSError: it cannot be written; nothing is left of it.
    """
    times: list[float] = []
    with tempfile.NamedTemporaryFile(prefix="doctor-", suffix=".tmp", dir=directory) as file:
        while len(times) < SYNCS and sum(times) < LONGEST_SYNCS:
            begun = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(PAGE), len(times) * PAGE)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return times


def row_of_syncs(times: Sequence[float]) -> Row:
    """Return the finding about the times of syncs (seconds, at least one)."""
    median = statistics.median(times)
    said = f"a page takes {median * 1000:.1f} ms (median of {len(times)}), {max(times) * 1000:.1f} ms at most"
    hint = "each delivery waits for one: use a local disk (SSD), not a network one; look for other programs that use it"
    if median >= TOO_SLOW:
        return failure(SYNC, said, hint)
    return warning(SYNC, said, hint) if median >= SLOW else ok(SYNC, said)


FEW_FILES = 1024


def check_files(subject: Subject) -> Iterator[Row]:
    """Check the limit of open files: of the server, where one runs; else of this shell, which starts one."""
    limit = files_limit_of(subject.pid) if subject.pid else None
    if limit is not None:
        yield row_of_files(limit, "of the server")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A server raises the soft limit towards the hard one.
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    yield row_of_files(max(soft, most), "of a server that is started here")


def files_limit_of(pid: int) -> int | None:
    """Return the soft limit of a process; None where the system does not show it."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            words = next(line.split() for line in file if line.startswith("Max open files"))
        return MOST_FILES if words[3] == "unlimited" else int(words[3])
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def row_of_files(limit: int, whose: str) -> Row:
    """Return the finding about a limit."""
    said = f"the limit {whose} is {limit:,}: room for about {connections_within(limit, 0):,} connections"
    hint = "raise it: LimitNOFILE=65536 in the systemd unit, or ulimit -n 65536 before `serve`"
    return warning(FILES, said, hint) if limit < FEW_FILES else ok(FILES, said)
