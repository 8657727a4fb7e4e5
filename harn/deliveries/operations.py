"""Operations that read deliveries: their list, one of them, the dead letters in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from msgspec import Meta

from harn.deliveries.describing import (
    DeadLetters,
    DeliveryDetail,
    DeliveryList,
    describe_dead,
    describe_list,
    describe_whole,
)
from harn.deliveries.redaction import IsCredential, no_credential
from harn.deliveries.selection import Selection, compile_where, read_states
from harn.operations.model import Caller, Get, Role, operation
from harn.operations.parameters import Parameters, shown_as
from harn.operations.values import Period

if TYPE_CHECKING:
    from harn.deliveries.reading import DeliveryReader
    from harn.reload.coordinator import Coordinator

MOST_LISTED = 1000
MOST_DIGITS = 18
"""Of a number that a list goes on from: the store has none that is longer."""
NonEmpty = Meta(min_length=1)


@frozen(kw_only=True)
class DeliveryService:
    """The service behind the operations that read deliveries."""

    reader: DeliveryReader
    coordinator: Coordinator

    @property
    def is_credential(self) -> IsCredential:
        """Return what recognizes the secrets of the live generation."""
        live = self.coordinator.current
        return no_credential if live is None else live.inputs.known.include


class Selecting(Parameters, frozen=True, kw_only=True):
    """Which deliveries; what is left out allows all."""

    state: (
        Annotated[str, shown_as("STATE"), Meta(description="Of this state; several with commas between them.")] | None
    ) = None
    trigger: Annotated[str, shown_as("ID"), Meta(description="Of this trigger.")] | None = None
    kind: Annotated[str, Meta(description="Of this kind of event, for example issues.opened.")] | None = None
    since: Annotated[Period, Meta(description="Received in the last DURATION, for example 1h.")] | None = None
    where: (
        Annotated[
            str,
            shown_as("EXPR"),
            Meta(
                description="Of which this JMESPath expression is true, over event, binding, trigger, state, attempts,"
                " reason, error_class and age_seconds."
            ),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        """
        Check what is written as text.

        :raises ValueError: a state has no such name, or the expression is wrong.
        """
        read_states(self.state or "")
        if self.where:
            compile_where(self.where)

    def selection(self, now: float) -> Selection:
        """Return the selection; what is empty counts as left out."""
        return Selection.of(
            now,
            states=read_states(self.state or ""),
            trigger=self.trigger or None,
            kind=self.kind or None,
            since=self.since,
            where=self.where or None,
        )


class ListDeliveries(Selecting, frozen=True, kw_only=True):
    """Which deliveries, and how many."""

    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED, description="At most N deliveries.")] = 100
    before: (
        Annotated[
            str,
            shown_as("EVENT_ID"),
            Meta(description="Go on with what is older than this one."),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        """
        Check the place, too.

        :raises ValueError: it is a number that no list can have given.
        """
        super().__post_init__()
        number_of(self.before or "")


class ShowDelivery(Parameters, frozen=True, kw_only=True):
    """Which delivery."""

    event_id: Annotated[str, NonEmpty, Meta(description="Its event id, as the answer to the sender has it.")]


class ListDeadLetters(Parameters, frozen=True, kw_only=True):
    """The trigger whose dead letters are counted."""

    trigger: Annotated[str, shown_as("ID"), Meta(description="Of this trigger only.")] | None = None


def number_of(before: str) -> int | None:
    """
    Return the number that a list goes on from, None if that is an event id.

    :raises ValueError: the number is too large.
    """
    if not (before.isascii() and before.isdigit()):
        return None
    if len(before) > MOST_DIGITS:
        raise ValueError(f"before: must be an event id, or a number of at most {MOST_DIGITS} digits, got {before!r}")
    return int(before)


@operation("deliveries.list", role=Role.READ, route=Get("/deliveries"))
async def list_deliveries(service: DeliveryService, caller: Caller, wanted: ListDeliveries) -> DeliveryList:
    """
    List deliveries, the newest first.

    :raises DeliveryUnknown: the one that the list goes on from is not kept.
    """
    before = number_of(wanted.before or "")
    if wanted.before and before is None:
        before = await service.reader.place(wanted.before)
    selection = wanted.selection(service.reader.wall.seconds())
    return describe_list(await service.reader.scan(selection, wanted.limit, before))


@operation("deliveries.show", role=Role.READ, route=Get("/deliveries/{event_id}"))
async def show_delivery(service: DeliveryService, caller: Caller, wanted: ShowDelivery) -> DeliveryDetail:
    """
    Show one delivery: what happened to it in order, its attempts, and its event without secrets.

    :raises DeliveryUnknown: there is none.
    """
    whole = await service.reader.whole(wanted.event_id)
    shown: DeliveryDetail = await service.reader.in_thread(describe_whole, whole, service.is_credential)
    return shown


@operation("dead_letters.list", role=Role.READ, route=Get("/dead-letters"))
async def list_dead_letters(service: DeliveryService, caller: Caller, wanted: ListDeadLetters) -> DeadLetters:
    """Count the dead letters by trigger, reason and class of error."""
    return describe_dead(await service.reader.lists.dead_groups(wanted.trigger or None))


OPERATIONS = (list_deliveries, show_delivery, list_dead_letters)
"""Those of a `DeliveryService`."""
