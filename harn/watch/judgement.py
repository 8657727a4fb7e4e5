"""What to make of what the files say now: a pure function of one look and of what is live."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from attrs import frozen

from harn.reload.settling import keeps_changing
from harn.watch.model import UNREADABLE, Seen, Watched


class Standing(Enum):
    """How what is on disk stands to what is live."""

    LIVE = "live"
    PINNED = "pinned"
    """It reads as when a rollback or a revert took its place: the pin holds."""
    RENEWED = "renewed"
    """It is that as well, but secrets, keys or certificates are not those that are live."""
    UNFIT = "unfit"
    """It is no state that anybody can have meant: a file is missing, or empty before it is written."""
    CHANGED = "changed"


@frozen
class Judgement:
    """:ivar why: of what is unfit: what is wrong, where, and what to do."""

    standing: Standing
    why: str = ""


def judge(seen: Seen, watched: Watched) -> Judgement:
    """Tell what to make of one look."""
    content, live = seen.content, watched.live
    newcomers = seen.newcomers - live.keys()
    differing = frozenset(path for path, digest in live.items() if content.get(path) != digest)
    if not differing and not newcomers:
        return Judgement(Standing.LIVE)
    if watched.pin is not None and watched.pin.holds(content):
        # Newcomers to an earlier generation may have been there all the time: they undo no rollback.
        return _beside_pinned(seen, watched, differing - watched.plain())
    why = _unfit(seen, watched, differing, newcomers)
    return Judgement(Standing.UNFIT, why) if why else Judgement(Standing.CHANGED)


def _unfit(seen: Seen, watched: Watched, differing: frozenset[str], newcomers: frozenset[str]) -> str:
    """Say what nobody can have meant; empty if somebody can."""
    manifest = watched.manifest
    if seen.content.get(manifest, UNREADABLE) == UNREADABLE:
        state = "is missing" if manifest in seen.missing else "cannot be read"
        return f"{manifest} {state}; put it back"
    if manifest in seen.empty:
        return f"{manifest} is empty; write it whole"
    return _unfit_files(seen, watched, differing, newcomers)


def _beside_pinned(seen: Seen, watched: Watched, keyed: frozenset[str]) -> Judgement:
    """Judge what differs beside what was rolled back from: files that no generation keeps the content of."""
    if not keyed:
        return Judgement(Standing.PINNED)
    why = _unfit_files(seen, watched, keyed, frozenset())
    return Judgement(Standing.UNFIT, why) if why else Judgement(Standing.RENEWED)


def _unfit_files(seen: Seen, watched: Watched, differing: frozenset[str], newcomers: frozenset[str]) -> str:
    if emptied := differing & seen.empty:
        return f"{_first(emptied)} is empty; write it whole, or ask for a reload if it is meant to be empty"
    gone = frozenset(path for path in differing if seen.content.get(path, UNREADABLE) == UNREADABLE)
    gone -= seen.missing & watched.included()
    # With other changes, a file that is gone may be part of them: a reload tells.
    if gone and gone == differing and not newcomers:
        state = "is missing" if gone <= seen.missing else "cannot be read"
        return f"{_first(gone)} {state}; put it back, or ask for a reload if it is meant to be so"
    return ""


def restless(first: Seen, second: Seen) -> str:
    """Say what kept changing between two looks that are not equal."""
    paths = first.content.keys() | second.content.keys()
    changed = [path for path in paths if first.content.get(path) != second.content.get(path)]
    return keeps_changing(changed)


def _first(paths: Collection[str]) -> str:
    more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{min(paths)}{more}"
