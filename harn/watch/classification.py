"""Classification of the files' content, compared with the live generation: a pure function of one look."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from attrs import frozen

from harn.reload.settling import keeps_changing
from harn.watch.model import UNREADABLE, Seen, Watched


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


@frozen
class Classification:
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
    """Classify what differs beside the replaced content: files whose content no generation stores."""
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
