"""What a reload came to, as its caller reads it. Plain values; `ReloadReport.to_dict` is the shape on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from harn.model.problem import Problem

STAGES = ("parse", "validate", "resolve", "prepare", "activate", "swap")
AUTHOR_STAGES = frozenset(("parse", "validate", "resolve"))
"""Stages whose failure the manifest's author can mend."""


@frozen(kw_only=True)
class ReloadRequest:
    """
    A wish for a reload.

    :ivar source: a label of at most 32 characters: ``signal``, ``cli``, ``admin_api``, ``file_watch`` or another.
    :ivar actor: who asked: a credential's name, ``signal``, ``watch``; never from the request's body.
    :ivar if_match: reload only if the live generation has this ``ETag``.
    """

    source: str
    actor: str
    force: bool = False
    dry_run: bool = False
    if_match: str | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether it may be merged with other plain requests."""
        return not (self.force or self.dry_run or self.if_match is not None)


@frozen(kw_only=True)
class Draining:
    """A version that drains, and its leases."""

    binding: str
    in_flight: int


@frozen(kw_only=True)
class ReloadReport:
    """
    The outcome of one reload.

    :ivar status: ``ok`` or ``error``.
    :ivar generation: the generation that serves now.
    :ivar stage: for an error: where it failed. ``timed_out``: because the stage ran out of time.
    """

    status: str
    source: str
    actor: str
    generation: int
    digest: str
    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    draining: tuple[Draining, ...] = ()
    requires_restart: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    duration_ms: float = 0.0
    dry_run: bool = False
    stage: str | None = None
    error: str | None = None
    problems: tuple[Problem, ...] = ()
    timed_out: bool = False
    at: float = 0.0

    @property
    def ok(self) -> bool:
        """Tell whether the reload succeeded."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """Give the shape of the admin API's answer."""
        if not self.ok:
            return {
                "status": "error",
                "source": self.source,
                "actor": self.actor,
                "stage": self.stage,
                "error": self.error,
                "problems": [problem.to_dict() for problem in self.problems],
                "generation": self.generation,
            }
        return {
            "status": "ok",
            "source": self.source,
            "actor": self.actor,
            "generation": self.generation,
            "digest": self.digest,
            "summary": {
                "added": list(self.added),
                "modified": list(self.modified),
                "removed": list(self.removed),
                "unchanged": list(self.unchanged),
            },
            "changes": {trigger_id: list(changes) for trigger_id, changes in self.changes.items()},
            "draining": [{"binding": each.binding, "in_flight": each.in_flight} for each in self.draining],
            "requires_restart": list(self.requires_restart),
            "warnings": list(self.warnings),
            "duration_ms": round(self.duration_ms, 3),
            **({"dry_run": True} if self.dry_run else {}),
        }
