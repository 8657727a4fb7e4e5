"""Operations on the generations that served: their list, the content of one, the differences between two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from msgspec import Meta, field

from harn.history.model import GenerationContent, GenerationDiff, GenerationList, describe_history, describe_recorded
from harn.operations.model import Caller, Get, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.history.differences import Recorded
    from harn.manifest.interfaces import PluginRules
    from harn.reload.archive import Content
    from harn.reload.coordinator import Coordinator
    from harn.store.generations import IGenerations
    from harn.waiting import InThread


@frozen(kw_only=True)
class HistoryService:
    """
    The service behind the operations on generations.

    :ivar manifest: the manifest's absolute path.
    :ivar rules: of the plugins that are installed.
    """

    store: IGenerations
    coordinator: Coordinator
    rules: PluginRules
    manifest: str
    in_thread: InThread


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


@operation("generations.list", role=Role.READ, route=Get("/generations"))
async def list_generations(service: HistoryService, caller: Caller, wanted: ListGenerations) -> GenerationList:
    """List the generations that served, the newest first."""
    records = await service.store.history(wanted.limit)
    return GenerationList(generations=describe_history(records, service.coordinator.generation))


@operation("generations.show", role=Role.READ, route=Get("/generations/{generation}"))
async def show_generation(service: HistoryService, caller: Caller, wanted: ShowGeneration) -> GenerationContent:
    """
    Show one generation with its manifest and its modules.

    :raises GenerationUnknown: its content is not kept.
    """
    content = await service.coordinator.archive.content(wanted.generation)
    text, live = content.manifest.decode("utf-8", "replace"), service.coordinator.generation
    found: GenerationContent = await service.in_thread(
        lambda: describe_recorded(content.record, text, content.bundle, live, sources=wanted.sources)
    )
    return found


@operation("generations.diff", role=Role.READ, route=Get("/diff"))
async def diff_generations(service: HistoryService, caller: Caller, wanted: DiffGenerations) -> GenerationDiff:
    """
    Show what differs between two generations.

    :raises GenerationUnknown: the content of one is not kept.
    """
    from harn.history.differences import generation_diff

    new = service.coordinator.generation if wanted.new is None else wanted.new
    before, after = [await service.coordinator.archive.content(number) for number in (wanted.old, new)]
    found: GenerationDiff = await service.in_thread(
        lambda: generation_diff(_recorded(service, before), _recorded(service, after))
    )
    return found


def _recorded(service: HistoryService, content: Content) -> Recorded:
    """Check the manifest of an earlier generation; most of it is in the live one."""
    from harn.history.differences import make_recorded

    live = service.coordinator.current
    loaded = None if live is None else live.inputs.loaded
    number = content.record.number
    return make_recorded(number, content.manifest, content.bundle, service.manifest, service.rules, loaded)


OPERATIONS = (list_generations, show_generation, diff_generations)
"""Those of a `HistoryService`."""
