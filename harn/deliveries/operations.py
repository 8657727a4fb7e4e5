"""
Operations that read deliveries: list, show, groups of dead letters, export and import of fixtures.

An event is exported as a fixture, a file for tests and for other servers; a fixture is imported as a new delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct, structs

from harn.clocks import WallTime, rfc3339
from harn.deliveries.describing import (
    DeadLetters,
    DeliveryDetail,
    DeliveryList,
    describe_dead,
    describe_list,
    describe_whole,
    envelope_of,
    shown_body,
    shown_headers,
)
from harn.deliveries.expressions import compile_where
from harn.deliveries.selection import Selection, read_states
from harn.errors import DeliveryUnknown, PayloadInvalid, RouteUnknown
from harn.model.delivery import NewDelivery
from harn.model.display import NO_SECRETS, SecretSet, describe_unknown, shown_value
from harn.model.event import Fixture, encode_envelope, fixture_document, make_fixture, read_fixture
from harn.model.event_trace import TraceContexts
from harn.model.references import binding_key, new_event_id, new_trace_id
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import SECRET, Parameters, Period, shown_as
from harn.store.deliveries import ListedDelivery

if TYPE_CHECKING:
    from harn.deliveries.selection import DeliveryReader
    from harn.dispatch.intake import Intake
    from harn.reload.coordinator import Coordinator
    from harn.triggers.binding import BindingVersion
    from harn.triggers.registry import Registry


MOST_LISTED = 1000
MOST_DIGITS = 18
"""Of a number that a list continues from: the store has none that is longer."""
NonEmpty = Meta(min_length=1)


class DeliveryService(Struct, frozen=True, kw_only=True):
    """
    The service behind the operations that read deliveries.

    :ivar traces: None while traces are off.
    """

    reader: DeliveryReader
    coordinator: Coordinator
    traces: TraceContexts | None = None

    @property
    def known(self) -> SecretSet:
        """Return the set that recognizes the secrets of the live generation."""
        live = self.coordinator.current
        return NO_SECRETS if live is None else live.inputs.known


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
        Check the parameters that are texts.

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
            Meta(description="Only deliveries older than this one."),
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
    """The trigger whose dead letters are counted, and which groups of them are listed."""

    trigger: Annotated[str, shown_as("ID"), Meta(description="Of this trigger only.")] | None = None
    offset: Annotated[int, Meta(ge=0, description="Pass over the first N groups.")] = 0
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED, description="At most N groups; else all.")] | None = None


def number_of(before: str) -> int | None:
    """
    Return the number that a list continues from, None if that is an event id.

    :raises ValueError: the number is too large.
    """
    if not (before.isascii() and before.isdigit()):
        return None
    if len(before) > MOST_DIGITS:
        raise ValueError(f"before: must be an event id, or a number of at most {MOST_DIGITS} digits, got {before!r}")
    return int(before)


@operation(
    "deliveries.list",
    role=Role.READ,
    route=Get("/deliveries"),
    example={"state": "dead", "trigger": "gh", "since": "24h", "limit": 20},
)
async def list_deliveries(service: DeliveryService, caller: Caller, wanted: ListDeliveries) -> DeliveryList:
    """
    List deliveries, the newest first.

    :raises DeliveryUnknown: the one that the list continues from is not kept.
    """
    before = number_of(wanted.before or "")
    if wanted.before and before is None:
        before = await service.reader.place(wanted.before)
    selection = wanted.selection(service.reader.wall.seconds())
    return describe_list(await service.reader.scan(selection, wanted.limit, before))


@operation(
    "deliveries.show",
    role=Role.READ,
    route=Get("/deliveries/{event_id}"),
    example={"event_id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057"},
)
async def show_delivery(service: DeliveryService, caller: Caller, wanted: ShowDelivery) -> DeliveryDetail:
    """
    Show one delivery: what happened to it in order, its attempts, and its event without secrets.

    :raises DeliveryUnknown: no delivery of this event is kept.
    """
    whole = await service.reader.whole(wanted.event_id)
    shown: DeliveryDetail = await service.reader.threads.call(describe_whole, whole, service.known)
    if service.traces is None:
        return shown
    trace = service.traces.of_event(whole.delivery.envelope, whole.delivery.event_id)
    return structs.replace(shown, otel_trace_id=trace.trace_id)


@operation("dead_letters.list", role=Role.READ, route=Get("/dead-letters"), example={"trigger": "gh"})
async def list_dead_letters(service: DeliveryService, caller: Caller, wanted: ListDeadLetters) -> DeadLetters:
    """Count the dead letters by trigger, reason and class of error."""
    return describe_dead(await service.reader.lists.dead_groups(wanted.trigger or None), wanted.offset, wanted.limit)


# Fixtures


class Exported(Result, frozen=True, kw_only=True):
    """A fixture; see the manual of handlers for its members."""

    fixture: dict[str, Any]


class Imported(Result, frozen=True, kw_only=True):
    """The delivery that a fixture became."""

    event_id: str
    trigger_id: str
    binding: str


class ImportFixture(Parameters, frozen=True, kw_only=True):
    """A fixture, and the trigger that gets it."""

    fixture: Annotated[Any, Meta(description="The document, as an export writes it."), SECRET]
    trigger: (
        Annotated[str, NonEmpty, shown_as("ID"), Meta(description="For this trigger; else for the fixture's own.")]
        | None
    ) = None


class FixtureImporter(Struct, frozen=True, kw_only=True):
    """Makes deliveries of fixtures."""

    wall: WallTime
    registry: Registry
    intake: Intake

    async def accept(self, fixture: Fixture, trigger_id: str) -> NewDelivery:
        """
        Accept a fixture as a new delivery of a trigger's newest version; filter and dedupe key are not evaluated.

        :raises RouteUnknown: there is no such trigger.
        :raises PayloadInvalid: the trigger gets events of another provider.
        :raises EventLogUnavailable: nothing is kept.
        """
        from harn.dispatch.decisions import Decided

        binding = self.registry.active.get(trigger_id)
        if binding is None:
            raise RouteUnknown(describe_unknown(trigger_id, self.registry.active))
        wanted = binding.spec.provider
        if fixture.envelope.provider != wanted:
            raise PayloadInvalid(
                f"fixture: its provider must be that of trigger {trigger_id!r}, {wanted!r}, got"
                f" {fixture.envelope.provider!r}"
            )
        new = self._new(fixture, binding)
        decided = Decided(deliveries=(new,), holders=(binding,))
        binding.lease()
        try:
            await self.intake.keep(binding, decided)
        finally:
            binding.release()
        return new

    def _new(self, fixture: Fixture, binding: BindingVersion) -> NewDelivery:
        now = self.wall.seconds()
        envelope = structs.replace(
            fixture.envelope,
            id=new_event_id(now),
            received_at=rfc3339(now),
            trace_id=new_trace_id(now),
            trace_link="",  # its headers name the trace of an old request
        )
        return NewDelivery(
            event_id=envelope.id,
            trigger_id=binding.id,
            version=binding.version,
            provider=envelope.provider,
            kind=envelope.kind,
            envelope=encode_envelope(envelope),
            body=fixture.raw_body(),
            received_at=now,
        )


def fixture_of(delivery: ListedDelivery, known: SecretSet) -> Fixture:
    """
    Return the fixture of a delivery, without secrets and signatures. Of a large body call it off the reactor's thread.

    :raises DeliveryUnknown: what is stored of its event is damaged.
    """
    envelope = envelope_of(delivery)
    if envelope is None:
        raise DeliveryUnknown(f"the event of {delivery.event_id} is damaged, and cannot be exported")
    body = shown_body(envelope, delivery.body, known)
    shown = structs.replace(
        envelope,
        headers=shown_headers(envelope.headers, known),
        payload=shown_value(envelope.payload, known),
    )
    return make_fixture(delivery.trigger_id, shown, body, redacted=shown != envelope or body != delivery.body)


@operation(
    "fixtures.export",
    role=Role.READ,
    route=Get("/fixtures/{event_id}"),
    example={"event_id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057"},
)
async def export_fixture(service: DeliveryService, caller: Caller, wanted: ShowDelivery) -> Exported:
    """
    Export the event of a delivery as a fixture, secrets and signatures redacted.

    :raises DeliveryUnknown: no delivery of this event is kept.
    """
    whole = await service.reader.whole(wanted.event_id)
    fixture: Fixture = await service.reader.threads.call(fixture_of, whole.delivery, service.known)
    return Exported(fixture=fixture_document(fixture))


FIXTURE = {
    "format": "harn-fixture/1",
    "trigger_id": "gh",
    "envelope": {
        "id": "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057",
        "provider": "github",
        "kind": "issues.opened",
        "received_at": "2026-11-20T09:14:03.000Z",
        "dedupe_key": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "trace_id": "trace_01890a5d-ac96-774b-bcce-b302099a8058",
        "headers": {"x-github-event": "issues"},
        "signature_status": {"state": "verified"},
        "payload": {"event": "issues.opened"},
        "lifted": {"action": ["action"]},
        "body_format": "json",
    },
    "body": '{"action": "opened"}',
}
"""An example."""


@operation(
    "fixtures.import",
    role=Role.OPERATE,
    route=Post("/fixtures"),
    example={"fixture": FIXTURE, "trigger": "gh"},
    audit=lambda done: {"imported": 1},
)
async def import_fixture(importer: FixtureImporter, caller: Caller, wanted: ImportFixture) -> Imported:
    """
    Accept a fixture as a new delivery of the newest version of its trigger.

    :raises PayloadInvalid: it is not a fixture, or of another provider than the trigger.
    :raises RouteUnknown: there is no such trigger.
    """
    try:
        fixture = read_fixture(wanted.fixture)
    except ValueError as error:
        raise PayloadInvalid(f"fixture: {error}") from None
    new = await importer.accept(fixture, wanted.trigger or fixture.trigger_id)
    return Imported(event_id=new.event_id, trigger_id=new.trigger_id, binding=binding_key(new.trigger_id, new.version))


OPERATIONS = (list_deliveries, show_delivery, list_dead_letters, export_fixture)
"""Those of a `DeliveryService`."""
IMPORTING = (import_fixture,)
"""Those of a `FixtureImporter`."""
