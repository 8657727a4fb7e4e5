"""
The provider ``cron``: ticks of a schedule.

Its connector starts nothing: schedules belong to triggers and not to their versions, so `harn.schedules` fires them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.clocks import rfc3339
from harn.connectors.interfaces import PUBLIC, ConnectorContext, IConnector, IConnectorPlugin, NormalizedEvent
from harn.connectors.schedule import UTC, CronSchedule, check_schedule, check_timezone, seconds_of
from harn.manifest.interfaces import SettingProblem
from harn.manifest.tables import StructSchema
from harn.model.event import UNSIGNED
from harn.model.quantities import parse_duration
from harn.wire import canonical_json

CRON = "cron"
TICK = "tick"
"""The kind of each event."""
SKIP, LATEST, ALL = "skip", "latest", "all"


class CronSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a trigger with a schedule."""

    schedule: Annotated[
        str, msgspec.Meta(description="Five fields (minute, hour, day, month, weekday), or six with seconds first.")
    ]
    timezone: Annotated[str, msgspec.Meta(description="The IANA name of the zone whose clocks the schedule means.")] = (
        UTC
    )
    catchup_mode: Annotated[
        Literal["skip", "latest", "all"],
        msgspec.Meta(description="Which of the ticks that were missed while no server ran are fired at its start."),
    ] = "skip"
    jitter: Annotated[
        str | None,
        msgspec.Meta(description="Each trigger is later by a time of its own, always the same, up to this duration."),
    ] = None

    @classmethod
    def of(cls, table: Any) -> CronSettings:
        """Convert the checked keys, given as plain values or as this class."""
        return msgspec.convert(table, cls, from_attributes=True)

    def times(self) -> CronSchedule:
        """Return the schedule."""
        return CronSchedule(self.schedule, self.timezone)

    def longest_delay(self) -> float:
        """Return ``jitter`` in seconds."""
        return 0.0 if self.jitter is None else parse_duration(self.jitter)

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values."""
        found = [*check_schedule(self.schedule), *check_timezone(self.timezone)]
        return found if self.jitter is None else [*found, *seconds_of(self.jitter, "jitter")[1]]


def make_tick(trigger_id: str, settings: CronSettings, at: float, *, is_late: bool = False) -> NormalizedEvent:
    """
    Return the event of one tick.

    :param at: when the schedule says (seconds, Unix), whenever it is fired.
    :param is_late: it had been missed.
    """
    return NormalizedEvent(
        kind=TICK,
        dedupe_key=f"{CRON}:{trigger_id}:{int(at)}",
        payload={"cron_id": trigger_id, "schedule": settings.schedule, "tick_at": rfc3339(at)},
        occurred_at=rfc3339(at),
        signature_status=UNSIGNED,
        body=canonical_json({"catchup": is_late, "timezone": settings.timezone}),
    )


@implementer(IConnector)
class Idle:
    """A connector that starts nothing itself."""

    def __init__(self, context: ConnectorContext) -> None:
        self._context = context

    def prepare(self) -> None:
        """Acquire nothing."""

    def activate(self) -> None:
        """Start nothing."""

    def quiesce(self) -> None:
        """Stop nothing."""

    def close(self) -> None:
        """Release nothing."""


class CronConnector(Idle):
    """Stands for the schedule of one trigger."""

    def example(self) -> NormalizedEvent:
        """Return a tick of the current second."""
        binding = self._context.binding
        settings = CronSettings.of(binding.settings)
        return make_tick(binding.trigger_id, settings, float(int(self._context.wall.seconds())))


@implementer(IPlugin, IConnectorPlugin)
class CronPlugin:
    """The provider ``cron``."""

    provider = CRON
    kinds = (CRON,)
    table = None
    keys = CronSettings.__struct_fields__
    events = (TICK,)
    schema = StructSchema(CronSettings)
    required_secrets = ()
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context: ConnectorContext) -> CronConnector:
        """Make the connector of one trigger."""
        return CronConnector(context)
