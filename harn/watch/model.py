"""What is watched, what was seen of it, and how a requested reload ended: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from harn.reload.inputs import Inputs
from harn.reload.pin import Pin
from harn.reload.report import AUTHOR_STAGES, NEEDS_CONFIRMATION, UNSETTLED, ReloadReport
from harn.vm.bundle import Bundle

Content = Mapping[str, str]
"""Digest of each file, by absolute path."""

UNREADABLE = "unreadable"
"""In place of a digest: there is no such file, it is none, or it may not be read (see `harn.reload.inputs`)."""


@frozen(kw_only=True)
class Watched:
    """
    What to watch now.

    :ivar paths: absolute: those of ``live`` and ``pin``, and the manifest.
    :ivar live: the digests of the live generation's files; what reads like this needs no reload.
    :ivar manifest: which of ``paths`` is the manifest.
    :ivar pin: of a rollback or a revert; while it holds, the files are not adopted.
    :ivar bundle: the live generation's modules: a new file that one of their imports would mean is news.
    :ivar exports: as the live manifest has it, like ``include``: patterns, relative to its directory, of which a match
        that is not live is news, too.
    :ivar failing: the last reload did not succeed, whoever asked for it.
    """

    paths: frozenset[str]
    live: Content
    manifest: str
    pin: Pin | None = None
    bundle: Bundle | None = None
    exports: Mapping[str, str] = field(factory=dict)
    include: tuple[str, ...] = ()
    failing: bool = True

    @classmethod
    def of(cls, live: Inputs | None, manifest: str, pin: Pin | None, *, failing: bool) -> Watched:
        """Say what to watch for the sake of a live generation; of none: the manifest."""
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
            failing=failing,
        )

    def plain(self) -> frozenset[str]:
        """Name the manifest, the live modules, and the pinned files; what is watched beside holds something secret."""
        modules = () if self.bundle is None else (module.path for module in self.bundle.modules.values())
        return frozenset((self.manifest, *modules, *(() if self.pin is None else self.pin.files)))

    def included(self) -> frozenset[str]:
        """Name the live files that are there because a pattern matches them: they come and go as they please."""
        if self.bundle is None:
            return frozenset()
        return frozenset(self.bundle.modules[name].path for name in self.bundle.included)


@frozen(kw_only=True)
class Seen:
    """
    One look at the files.

    :ivar content: digests of the watched files and of ``newcomers``.
    :ivar beside: digests of the other modules below the manifest: one of them may be what a refused reload missed.
    :ivar newcomers: files that are not live, but would be read by a reload.
    :ivar empty: which of the files that are not as they are live, and of the manifest, hold nothing; ``missing``: which
        are not there at all.
    """

    content: Content
    beside: Content = field(factory=dict)
    newcomers: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


class Outcome(Enum):
    """What became of a reload that the watcher asked for."""

    ADOPTED = "adopted"
    REFUSED = "refused"
    """Or held until somebody confirms it: to ask again for the same bytes would change nothing."""
    TRY_AGAIN = "try again"
    """It failed for a reason that may pass by itself."""


def outcome_of(report: ReloadReport) -> Outcome:
    """Tell from a report whether to ask again."""
    if report.ok:
        return Outcome.ADOPTED
    may_pass = report.timed_out or report.status == UNSETTLED or report.stage not in AUTHOR_STAGES
    return Outcome.TRY_AGAIN if may_pass and report.status != NEEDS_CONFIRMATION else Outcome.REFUSED
