"""Generations and what differs between two, as the admin API gives them and as commands show them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType, field

from harn.operations.model import Result
from harn.reload.plans import FieldChange, FileChange, SettingChange


class GenerationInfo(Result, frozen=True, kw_only=True):
    """One generation that served."""

    generation: int
    digest: str
    source: str
    actor: str
    adopted_at: str | None
    live: bool
    recalled: Annotated[int | None, Meta(description="The earlier generation whose content it is.")]
    reason: str
    summary: Annotated[dict[str, Any], Meta(description="Triggers that were added, modified and removed; counts.")]


class GenerationList(Result, frozen=True, kw_only=True):
    """Generations that served, the newest first."""

    generations: tuple[GenerationInfo, ...]


class ModuleInfo(Result, frozen=True, kw_only=True):
    """One local module."""

    name: str
    path: str
    digest: str
    source: str | UnsetType = UNSET


class GenerationContent(Result, frozen=True, kw_only=True):
    """One generation with its manifest and modules."""

    generation: int
    digest: str
    manifest_digest: str
    source: str
    actor: str
    adopted_at: str | None
    live: bool
    recalled: int | None
    reason: str
    summary: dict[str, Any]
    manifest: str
    modules: tuple[ModuleInfo, ...]


class TriggerDiff(Result, frozen=True, kw_only=True):
    """The differences of one trigger: its fields, and the paths of its code."""

    fields: tuple[FieldChange, ...]
    code: tuple[str, ...]


class DiffSummary(Result, frozen=True, kw_only=True):
    """Triggers by what happened to them; how many are unchanged, null where that cannot be said."""

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int | None = None


class GenerationDiff(Result, frozen=True, kw_only=True):
    """The differences between two generations; ``note`` says why only texts and files are compared."""

    old: int = field(name="from")
    new: int = field(name="to")
    summary: DiffSummary
    changes: dict[str, TriggerDiff]
    settings: tuple[SettingChange, ...]
    note: str | UnsetType = UNSET
    files: tuple[FileChange, ...]
    manifest: Annotated[str, Meta(description="The unified diff of the manifests.")]
