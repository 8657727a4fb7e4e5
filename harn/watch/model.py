"""Values of the watcher: the watched files, a look at them, and the outcome of a requested reload."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from harn.reload.inputs import Inputs
from harn.reload.pin import Pin
from harn.reload.report import AUTHOR_STAGES, NEEDS_CONFIRMATION, UNSETTLED, ReloadReport
from harn.vm.bundle import Bundle

Digests = Mapping[str, str]
"""Digest of each file, by absolute path."""

UNREADABLE = "unreadable"
"""Replaces a digest: the file does not exist, is not a regular one, or may not be read (see `harn.reload.inputs`)."""


@frozen(kw_only=True)
class Watched:
    """
    The files to watch now.

    :ivar paths: absolute: those of ``live`` and ``pin``, and the manifest.
    :ivar live: the digests of the live generation's files; files with these digests need no reload.
    :ivar manifest: which of ``paths`` is the manifest.
    :ivar pin: of a rollback or a revert; while it holds, the files are not adopted.
    :ivar bundle: the live generation's modules: a new file that one of their imports would load is a change.
    :ivar exports: of the live manifest, like ``include``: patterns, relative to its directory, whose matches that are
        not live are changes, too.
    :ivar failing: the last reload did not succeed, whoever requested it.
    """

    paths: frozenset[str]
    live: Digests
    manifest: str
    pin: Pin | None = None
    bundle: Bundle | None = None
    exports: Mapping[str, str] = field(factory=dict)
    include: tuple[str, ...] = ()
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
            failing=failing,
        )

    def plain(self) -> frozenset[str]:
        """Return the manifest, the live modules, and the pinned files; the other watched files hold secrets."""
        modules = () if self.bundle is None else (module.path for module in self.bundle.modules.values())
        return frozenset((self.manifest, *modules, *(() if self.pin is None else self.pin.files)))

    def included(self) -> frozenset[str]:
        """Return the live files that match a pattern: they may be added and removed freely."""
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
    :ivar empty: which of the files that differ from the live ones, and of the manifest, are empty; ``missing``: which
        do not exist.
    """

    content: Digests
    beside: Digests = field(factory=dict)
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
