"""
Operations on the generations that served: list, content of one, differences between two.

The store's records become results here, from a running server or without one.
"""

from __future__ import annotations

import tokenize
from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, convert, field, structs

from harn.clocks import rfc3339
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.reload.results import FieldChange, FileChange, GenerationSummary, SettingChange
from harn.vm.bundle import Bundle, Module, sorted_modules

if TYPE_CHECKING:
    from harn.history.differences import Recorded
    from harn.manifest.interfaces import PluginRules
    from harn.reload.archive import ArchivedContent
    from harn.reload.coordinator import Coordinator
    from harn.store.generations import GenerationRecord, IGenerations
    from harn.waiting import ReactorThreads


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
    summary: GenerationSummary


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
    summary: GenerationSummary
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


def describe_history(records: Iterable[GenerationRecord], live: int | None) -> tuple[GenerationInfo, ...]:
    """
    Return one entry for each record, in their order.

    :param live: the generation that serves; None when no server runs.
    """
    return tuple(
        GenerationInfo(
            generation=record.number,
            digest=record.digest,
            source=record.source,
            actor=record.actor,
            adopted_at=None if record.adopted_at is None else rfc3339(record.adopted_at),
            live=record.number == live,
            recalled=record.recalled,
            reason=record.reason,
            summary=convert(record.summary, GenerationSummary),
        )
        for record in records
    )


def describe_recorded(
    record: GenerationRecord, manifest: str, bundle: Bundle, live: int | None, *, sources: bool
) -> GenerationContent:
    """
    Return one generation with its content.

    :param manifest: the manifest's text.
    :param live: see `describe_history`.
    :param sources: each module's text, too.
    """
    [entry] = describe_history((record,), live)
    return GenerationContent(
        **structs.asdict(entry),
        manifest_digest=record.manifest_digest,
        manifest=manifest,
        modules=tuple(_describe_module(module, sources) for module in sorted_modules(bundle.modules)),
    )


def _describe_module(module: Module, sources: bool) -> ModuleInfo:
    source = source_text(module.source) if sources else UNSET
    return ModuleInfo(name=module.name, path=module.path, digest=module.digest, source=source)


def source_text(source: bytes) -> str:
    """Decode a module as Python does, by its mark or its comment; bytes that cannot be decoded are replaced."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
        text = source.decode(encoding, "replace")
    except (SyntaxError, LookupError, ValueError):
        text = source.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode("utf-8")  # some codecs give halves of pairs, which no JSON has


class HistoryService(Struct, frozen=True, kw_only=True):
    """
    The service behind the operations on generations.

    :ivar manifest: the manifest's absolute path.
    :ivar rules: of the plugins that are installed.
    """

    store: IGenerations
    coordinator: Coordinator
    rules: PluginRules
    manifest: str
    threads: ReactorThreads


class ListGenerations(Parameters, frozen=True, kw_only=True):
    """The number to list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="At most N generations.")] = 20


class ShowGeneration(Parameters, frozen=True, kw_only=True):
    """Which generation."""

    generation: Annotated[int, Meta(ge=1, description="Its number.")]
    sources: Annotated[bool, Meta(description="The text of its modules, too.")] = False


class DiffGenerations(Parameters, frozen=True, kw_only=True):
    """Which two generations."""

    old: Annotated[int, Meta(ge=1, description="The number of the earlier one.")] = field(name="from")
    new: Annotated[int, Meta(ge=1, description="The number of the later one; the live one if left out.")] | None = (
        field(name="to", default=None)
    )


@operation("generations.list", role=Role.READ, route=Get("/generations"), example={"limit": 10})
async def list_generations(service: HistoryService, caller: Caller, wanted: ListGenerations) -> GenerationList:
    """List the generations that served, the newest first."""
    records = await service.store.history(wanted.limit)
    return GenerationList(generations=describe_history(records, service.coordinator.generation))


@operation(
    "generations.show",
    role=Role.READ,
    route=Get("/generations/{generation}"),
    example={"generation": 1, "sources": True},
)
async def show_generation(service: HistoryService, caller: Caller, wanted: ShowGeneration) -> GenerationContent:
    """
    Show one generation with its manifest and its modules.

    :raises GenerationUnknown: its content is not kept.
    """
    content = await service.coordinator.archive.content(wanted.generation)
    text, live = content.manifest.decode("utf-8", "replace"), service.coordinator.generation
    found: GenerationContent = await service.threads.call(
        lambda: describe_recorded(content.record, text, content.bundle, live, sources=wanted.sources)
    )
    return found


@operation("generations.diff", role=Role.READ, route=Get("/diff"), example={"from": 1})
async def diff_generations(service: HistoryService, caller: Caller, wanted: DiffGenerations) -> GenerationDiff:
    """
    Show the differences between two generations.

    :raises GenerationUnknown: the content of one is not kept.
    """
    from harn.history.differences import generation_diff

    new = service.coordinator.generation if wanted.new is None else wanted.new
    before, after = [await service.coordinator.archive.content(number) for number in (wanted.old, new)]
    found: GenerationDiff = await service.threads.call(
        lambda: generation_diff(_recorded(service, before), _recorded(service, after))
    )
    return found


def _recorded(service: HistoryService, content: ArchivedContent) -> Recorded:
    """Check the manifest of an earlier generation; most of it is in the live one."""
    from harn.history.differences import make_recorded

    live = service.coordinator.current
    loaded = None if live is None else live.inputs.loaded
    number = content.record.number
    return make_recorded(number, content.manifest, content.bundle, service.manifest, service.rules, loaded)


OPERATIONS = (list_generations, show_generation, diff_generations)
"""Those of a `HistoryService`."""
