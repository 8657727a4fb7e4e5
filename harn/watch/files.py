"""
The watched files: their paths, a snapshot of them, and the classification of its changes.

Looking queries the file system, in a thread; everything else is pure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from enum import Enum

from msgspec import Struct, field
from twisted.internet.defer import Deferred
from zope.interface import Interface

from harn.manifest.source import find_included
from harn.reload.build import keeps_changing
from harn.reload.generation import Pin
from harn.reload.inputs import Inputs
from harn.reload.report import AUTHOR_STAGES, NEEDS_CONFIRMATION, UNSETTLED, ReloadReport
from harn.vm.bundle import Bundle
from harn.vm.sources import find_modules
from harn.wire import digest_bytes

Digests = Mapping[str, str]
"""Digest of each file, by absolute path."""

UNREADABLE = "unreadable"
"""Replaces a digest: the file does not exist, is not a regular one, or may not be read (see `harn.reload.inputs`)."""


class Watched(Struct, frozen=True, kw_only=True):
    """
    The files to watch now.

    :ivar paths: absolute: those of ``live`` and ``pin``, and the manifest.
    :ivar live: the digests of the live generation's files; files with these digests need no reload.
    :ivar manifest: which of ``paths`` is the manifest.
    :ivar pin: of a rollback or a revert; while it holds, the files are not adopted.
    :ivar bundle: the live generation's modules: a new file that one of their imports would load is a change.
    :ivar exports: of the live manifest, like ``include``: patterns, relative to its directory, whose matches that are
        not live are changes, too; so are ``parts``, patterns of the files that the manifest
        includes, and ``included_parts``, those that are live.
    :ivar failing: the last reload did not succeed, whoever requested it.
    """

    paths: frozenset[str]
    live: Digests
    manifest: str
    pin: Pin | None = None
    bundle: Bundle | None = None
    exports: Mapping[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    included_parts: frozenset[str] = frozenset()
    failing: bool = True

    @classmethod
    def of(cls, live: Inputs | None, manifest: str, pin: Pin | None, *, failing: bool) -> Watched:
        """Return the files to watch for a live generation; without one: the manifest."""
        if live is None:
            return cls(paths=frozenset((manifest,)), live={}, manifest=manifest, failing=failing)
        return cls(
            paths=frozenset((*live.files, *(() if pin is None else pin.files), manifest)),
            live=live.files,
            manifest=manifest,
            pin=pin,
            bundle=live.bundle,
            exports=live.manifest.exports,
            include=tuple(live.manifest.orchestrator.vm.include),
            parts=live.manifest.include,
            included_parts=frozenset(live.loaded.files) - {manifest},
            failing=failing,
        )

    def plain(self) -> frozenset[str]:
        """Return the manifest, the live modules, and the pinned files; the other watched files hold secrets."""
        modules = () if self.bundle is None else (module.path for module in self.bundle.modules.values())
        return frozenset((self.manifest, *self.included_parts, *modules, *(() if self.pin is None else self.pin.files)))

    def included(self) -> frozenset[str]:
        """Return the live files that match a pattern: they may be added and removed freely."""
        bundle = self.bundle
        modules = () if bundle is None else (bundle.modules[name].path for name in bundle.included)
        return frozenset((*self.included_parts, *modules))


class Seen(Struct, frozen=True, kw_only=True):
    """
    One look at the files.

    :ivar content: digests of the watched files and of ``newcomers``.
    :ivar beside: digests of the other modules below the manifest: one of them may be what a refused reload missed.
    :ivar newcomers: files that are not live, but would be read by a reload.
    :ivar empty: which of the files that differ from the live ones, and of the manifest, are empty.
    :ivar missing: which do not exist.
    """

    content: Digests
    beside: Digests = field(default_factory=dict)
    newcomers: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


class ReloadOutcome(Enum):
    """The outcome of a reload that the watcher requested."""

    ADOPTED = "adopted"
    REFUSED = "refused"
    """Or held for confirmation: requesting the same bytes again would change nothing."""
    TRY_AGAIN = "try again"
    """It failed for a reason that may pass."""


def reload_outcome(report: ReloadReport) -> ReloadOutcome:
    """Return from a report whether to try again."""
    if report.ok:
        return ReloadOutcome.ADOPTED
    may_pass = report.timed_out or report.status == UNSETTLED or report.stage not in AUTHOR_STAGES
    return ReloadOutcome.TRY_AGAIN if may_pass and report.status != NEEDS_CONFIRMATION else ReloadOutcome.REFUSED


class FileStatus(Enum):
    """The status of the files on disk, compared with the live generation."""

    LIVE = "live"
    PINNED = "pinned"
    """They read as when a rollback or a revert replaced them: the pin holds."""
    RENEWED = "renewed"
    """The same, but secrets, keys or certificates differ from the live ones."""
    UNFIT = "unfit"
    """Not a complete state: a file is missing, or empty before it is written."""
    CHANGED = "changed"


class Classification(Struct, frozen=True):
    """:ivar why: for `UNFIT`: what is wrong, where, and what to do."""

    status: FileStatus
    why: str = ""


def classify(seen: Seen, watched: Watched) -> Classification:
    """Return the status of the files at one look."""
    content, live = seen.content, watched.live
    newcomers = seen.newcomers - live.keys()
    differing = frozenset(path for path, digest in live.items() if content.get(path) != digest)
    if not differing and not newcomers:
        return Classification(FileStatus.LIVE)
    if watched.pin is not None and watched.pin.holds(content):
        # Files that are new beside an earlier generation may have existed all the time: they undo no rollback.
        return _beside_pinned(seen, watched, differing - watched.plain())
    why = _unfit(seen, watched, differing, newcomers)
    return Classification(FileStatus.UNFIT, why) if why else Classification(FileStatus.CHANGED)


def _unfit(seen: Seen, watched: Watched, differing: frozenset[str], newcomers: frozenset[str]) -> str:
    """Return why the files are incomplete; empty if they are not."""
    manifest = watched.manifest
    if seen.content.get(manifest, UNREADABLE) == UNREADABLE:
        state = "is missing" if manifest in seen.missing else "cannot be read"
        return f"{manifest} {state}; put it back"
    if manifest in seen.empty:
        return f"{manifest} is empty; write it whole"
    return _unfit_files(seen, watched, differing, newcomers)


def _beside_pinned(seen: Seen, watched: Watched, keyed: frozenset[str]) -> Classification:
    """Classify the differences beside the replaced content: files whose content no generation stores."""
    if not keyed:
        return Classification(FileStatus.PINNED)
    why = _unfit_files(seen, watched, keyed, frozenset())
    return Classification(FileStatus.UNFIT, why) if why else Classification(FileStatus.RENEWED)


def _unfit_files(seen: Seen, watched: Watched, differing: frozenset[str], newcomers: frozenset[str]) -> str:
    if emptied := differing & seen.empty:
        return f"{_first(emptied)} is empty; write it whole, or ask for a reload if it is meant to be empty"
    gone = frozenset(path for path in differing if seen.content.get(path, UNREADABLE) == UNREADABLE)
    gone -= seen.missing & watched.included()
    # With other changes, a missing file may be part of them: a reload decides.
    if gone and gone == differing and not newcomers:
        state = "is missing" if gone <= seen.missing else "cannot be read"
        return f"{_first(gone)} {state}; put it back, or ask for a reload if it is meant to be so"
    return ""


def restless(first: Seen, second: Seen) -> str:
    """Return which files changed between two looks."""
    paths = first.content.keys() | second.content.keys()
    changed = [path for path in paths if first.content.get(path) != second.content.get(path)]
    return keeps_changing(changed)


def _first(paths: Collection[str]) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{min(paths)}{more}"


class IWatchedServer(Interface):
    """The server that a watcher watches files for."""

    def watched() -> Watched:
        """Return the files to watch now."""

    def read(paths: Iterable[str]) -> Digests:
        """Digest the current content of files. Blocks: for a thread."""

    def reload(content: Digests) -> Deferred[ReloadOutcome]:
        """Request a reload that adopts this content or nothing."""

    def renew() -> Deferred[ReloadOutcome]:
        """Request a reload that keeps the live manifest and code, and reads everything else again."""

    def unsettled(why: str) -> Deferred[None]:
        """Report that nothing could be adopted for a while."""


NOTHING = digest_bytes(b"")
"""The digest of an empty file; keyed digests differ, and such a file is recognized by its size alone."""
DEEPEST = 3
"""Levels of directories below the manifest's that are searched for modules."""
MOST_MODULES = 500
"""Modules after which no further directory is searched."""
MOST_DIRECTORIES = 1000
"""Directories after which no further one is searched."""
MOST_LINKS = 40
"""Links that are followed from one name, as the system itself limits them."""


def link_chain(path: str) -> set[str]:
    """Return every name whose replacement may change the content of ``path``: itself, and each link on the way."""
    names: set[str] = set()
    pending = [os.path.abspath(path)]
    while pending and len(names) < MOST_LINKS:
        current = pending.pop()
        if current in names:
            continue
        names.add(current)
        parts = current.split(os.sep)[1:]
        prefix = os.sep
        for index, part in enumerate(parts):
            prefix = os.path.join(prefix, part)
            target = _target(prefix)
            if target is not None:
                names.add(prefix)
                onward = os.path.join(os.path.dirname(prefix), target, *parts[index + 1 :])
                pending.append(os.path.normpath(onward))
                break
    return names


def _target(path: str) -> str | None:
    """Return a link's target; None for anything else. One call, as the link may be removed between two."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def look(watched: Watched, server: IWatchedServer) -> Seen:
    """Read the watched files. While they are as the live ones, no other file is searched or read."""
    newcomers = find_newcomers(watched)
    wanted = watched.paths | newcomers
    content = server.read(wanted)
    differing = {path for path, digest in watched.live.items() if content.get(path) != digest}
    sizes = {path: _size(path) for path in differing | {watched.manifest}}
    return Seen(
        content=content,
        beside=server.read(sources_below(watched.manifest) - wanted) if differing or newcomers else {},
        newcomers=newcomers,
        # Read and measured at two moments: in a flood of writes each may find a file truncated only for that moment.
        empty=frozenset(path for path, size in sizes.items() if size == 0 or content.get(path) == NOTHING),
        missing=frozenset(path for path, size in sizes.items() if size is None),
    )


def find_newcomers(watched: Watched) -> frozenset[str]:
    """
    Return the files that a reload would read and that are not live, as far as the live generation refers to them:
    modules, and files of the manifest.
    """
    bundle = watched.bundle
    parts = find_included(watched.manifest, watched.parts)
    if bundle is None:
        return frozenset(parts) - watched.live.keys()
    names: set[str] = set()
    for module in bundle.modules.values():
        names.add(module.name)
        names.update(module.import_names)
    for name in tuple(names):
        while name := name.rpartition(".")[0]:
            names.add(name)
    root = os.path.dirname(watched.manifest)
    found = find_modules(root, watched.exports, names, watched.include)
    return frozenset((*found, *parts)) - watched.live.keys()


def _size(path: str) -> int | None:
    """Return the bytes of a regular file; -1 for another kind; None if it does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def sources_below(manifest: str) -> frozenset[str]:
    """
    List the Python modules, and files that a manifest may include, next to it and below, as far as `DEEPEST`.

    Hidden directories and virtual environments are skipped.
    """
    found: set[str] = set()
    root = os.path.dirname(manifest)
    for count, (directory, inner, names) in enumerate(os.walk(root), 1):
        found.update(os.path.join(directory, name) for name in names if _is_source(name))
        if len(found) >= MOST_MODULES or count >= MOST_DIRECTORIES:
            break
        level = 0 if directory == root else os.path.relpath(directory, root).count(os.sep) + 1
        if level >= DEEPEST:
            inner.clear()
        inner[:] = sorted(name for name in inner if not _is_foreign(os.path.join(directory, name)))
    return frozenset(found)


def _is_source(name: str) -> bool:
    return (name.endswith(".toml") and name[0] != ".") or (name.endswith(".py") and name[: -len(".py")].isidentifier())


def _is_foreign(directory: str) -> bool:
    name = os.path.basename(directory)
    return name.startswith((".", "__")) or name == "node_modules" or os.path.exists(f"{directory}/pyvenv.cfg")
