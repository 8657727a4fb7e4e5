"""Export and import: the event of a delivery as a fixture, and a fixture as a new delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from attrs import frozen
from msgspec import Meta, structs

from harn.clocks import WallTime, rfc3339
from harn.deliveries.operations import DeliveryService, NonEmpty, ShowDelivery
from harn.deliveries.redaction import IsCredential, envelope_of, shown_body, shown_headers, shown_value
from harn.errors import DeliveryUnknown, PayloadInvalid, RouteUnknown
from harn.model.delivery import NewDelivery
from harn.model.event import encode_envelope
from harn.model.fixture import Fixture, fixture_document, make_fixture, read_fixture
from harn.model.references import binding_key, new_event_id, new_trace_id
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import SECRET, Parameters, shown_as
from harn.store.lists import ListedDelivery

if TYPE_CHECKING:
    from harn.dispatch.intake import Intake
    from harn.triggers.binding import BindingVersion
    from harn.triggers.registry import Registry

MOST_NAMED = 10


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

    fixture: Annotated[Any, Meta(description="The document, as an export has it."), SECRET]
    trigger: (
        Annotated[str, NonEmpty, shown_as("ID"), Meta(description="For this trigger; else for the fixture's own.")]
        | None
    ) = None


@frozen(kw_only=True)
class FixtureImporter:
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
        from harn.dispatch.intake import Decided

        binding = self.registry.active.get(trigger_id)
        if binding is None:
            known = ", ".join(sorted(self.registry.active)[:MOST_NAMED])
            raise RouteUnknown(f"unknown trigger {trigger_id!r}; the live generation has: {known}")
        wanted = binding.spec.provider
        if fixture.envelope.provider != wanted:
            raise PayloadInvalid(
                f"fixture: its provider must be that of trigger {trigger_id!r}, {wanted!r}, got"
                f" {fixture.envelope.provider!r}"
            )
        new = self._new(fixture, binding)
        decided = Decided(deliveries=(new,), ignored=0, filtered=0, guard=None, holders=(binding,))
        binding.lease()
        try:
            await self.intake.keep(binding, decided)
        finally:
            binding.release()
        return new

    def _new(self, fixture: Fixture, binding: BindingVersion) -> NewDelivery:
        now = self.wall.seconds()
        envelope = structs.replace(
            fixture.envelope, id=new_event_id(now), received_at=rfc3339(now), trace_id=new_trace_id(now)
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


def fixture_of(delivery: ListedDelivery, is_credential: IsCredential) -> Fixture:
    """
    Return the fixture of a delivery, without secrets and signatures. Of a large body call it off the reactor's thread.

    :raises DeliveryUnknown: what is stored of its event is damaged.
    """
    envelope = envelope_of(delivery)
    if envelope is None:
        raise DeliveryUnknown(f"the event of {delivery.event_id} is damaged, and cannot be exported")
    body = shown_body(envelope, delivery.body, is_credential)
    shown = structs.replace(
        envelope,
        headers=shown_headers(envelope.headers, is_credential),
        payload=shown_value(envelope.payload, is_credential),
    )
    return make_fixture(delivery.trigger_id, shown, body, redacted=shown != envelope or body != delivery.body)


@operation("fixtures.export", role=Role.READ, route=Get("/fixtures/{event_id}"))
async def export_fixture(service: DeliveryService, caller: Caller, wanted: ShowDelivery) -> Exported:
    """
    Export the event of a delivery as a fixture, secrets and signatures redacted.

    :raises DeliveryUnknown: there is none.
    """
    whole = await service.reader.whole(wanted.event_id)
    fixture: Fixture = await service.reader.in_thread(fixture_of, whole.delivery, service.is_credential)
    return Exported(fixture=fixture_document(fixture))


@operation("fixtures.import", role=Role.OPERATE, route=Post("/fixtures"), audit=lambda done: {"imported": 1})
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


READING, WRITING = (export_fixture,), (import_fixture,)
"""Operations of a `DeliveryService`, and of a `FixtureImporter`."""
