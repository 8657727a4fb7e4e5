"""
``harn orchestrator inspect`` and ``alerts``: the state of a server and of its alerts, or their last state.

A message of an alert can be sent, to see that it arrives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import ValidationError, convert, to_builtins

from harn.cli.client import ask
from harn.cli.options import with_json, with_place
from harn.cli.output import print_error
from harn.cli.place import ServerLocation, ServerTarget, with_server
from harn.cli.rows import STATE_STYLES, Column, Rows, draw, print_json, section
from harn.clocks import rfc3339
from harn.errors import HarnError
from harn.model.display import visible
from harn.orchestrator.operations import OUTBOX, RECENT, Inspect, Inspection, TriggerInfo
from harn.orchestrator.operations import inspect as inspect_operation
from harn.statistics.figures import TriggerFigures
from harn.store.lock import read_state

if TYPE_CHECKING:
    from harn.alerts.operations import AlertInfo, AlertList, AlertTested

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
"""Units of time: their seconds, and their names."""
NOT_AGAIN: dict[str, Any] = dict.fromkeys(
    ("accepted", "running", "waiting", "dead", "refused", "last_success", "last_failure", "next_due")
)
"""What a table shows of a trigger in one line only."""
SHOWN = 5
"""Recent dispatches that are shown to people."""


def state_of(each: TriggerInfo) -> str:
    """Return the state of a version, and what keeps its trigger's deliveries from beginning."""
    held = ("paused" if each.paused else "", f"circuit {each.circuit}" if each.circuit in ("open", "half_open") else "")
    return ", ".join(word for word in (each.state, *held) if word)


OUTCOMES = {"dispatch_succeeded": "succeeded", "dispatch_skipped": "skipped", "dispatch_failed": "failed"}
TRIGGERS = (
    Column("Trigger", lambda each: f"{each.id}@v{each.version}"),
    Column("Provider", lambda each: each.provider, drop=14),
    Column("State", state_of, styles=STATE_STYLES),
    Column("Share", lambda each: None if each.share is msgspec.UNSET else f"{each.share:g} %", drop=3, is_right=True),
    Column("accepted", lambda each: each.accepted, is_right=True),
    Column("running", lambda each: each.running, drop=1, is_right=True),
    Column("waiting", lambda each: each.waiting, drop=2, is_right=True),
    Column("dead", lambda each: each.dead, is_right=True),
    Column("refused", lambda each: each.refused, drop=4, is_right=True),
    Column("last success", lambda each: ago(each.last_success), drop=6, is_right=True),
    Column("last failure", lambda each: ago(each.last_failure), drop=5, is_right=True),
    Column("next due", lambda each: ago(each.next_due), drop=7, is_right=True),
    Column("received", lambda each: each.received, drop=12, is_right=True),
    Column("dispatched", lambda each: each.dispatched, drop=11, is_right=True),
    Column("failed", lambda each: each.failed, drop=10, is_right=True),
    Column("dlq", lambda each: each.dlq, drop=13, is_right=True),
    Column("in flight", lambda each: each.in_flight, drop=9, is_right=True),
)
DISPATCHES = (
    Column("At", lambda each: time_of(each.get("occurred_at_ms", 0)), drop=1),
    Column("Binding", lambda each: each.get("binding_key")),
    Column("Attempt", lambda each: each.get("attempt"), drop=2),
    Column(
        "Outcome",
        lambda each: OUTCOMES.get(each["kind"], each["kind"]),
        styles={"succeeded": "green", "skipped": "yellow", "failed": "red"},
    ),
    Column("Result or error", lambda each: each["error"] if each.get("error") else each.get("result"), wraps=True),
)


class NeverRan(HarnError):
    """No server has ever run on the state directory."""


@click.command()
@with_place
@with_server
@with_json
def inspect(target: ServerTarget, as_json: bool) -> None:
    """Show triggers, connectors and recent dispatches."""
    client = target.client_if_any()
    if client is None:
        found = inspect_offline(target.location)
        document = msgspec.to_builtins(found)
    else:
        answered = ask(client, inspect_operation, Inspect())
        found, document = answered.result, answered.document
    if as_json:
        print_json(document)
        return
    if sys.stdout.isatty():
        from harn.cli.terminal import print_inspection

        print_inspection(found, SHOWN)
        return
    for line in describe(found):
        click.echo(line)


def inspect_offline(place: ServerLocation) -> Inspection:
    """
    Return the state of a server that does not run, from the state file and the store.

    :raises NeverRan: there is neither.
    """
    from harn.cli.sources import StoredFigures, StoredRecords

    state = read_state(place.state_dir)
    if state is None:
        raise NeverRan(
            f"no server has run on {place.state_dir_name}; start one with: "
            f"harn orchestrator serve --config {place.manifest} --state-dir {place.state_dir_name}"
        )
    # A server that was killed could not say that it ended.
    status = "stopped" if state.get("status") == "stopped" else "crashed"
    recent = StoredRecords(place.state_dir).newest(OUTBOX, RECENT)
    figures = StoredFigures(place.state_dir).read()
    document = {
        "triggers": [{**each, **dict(members(figures.of(str(each.get("id")))))} for each in state.get("triggers", [])],
        "connectors": state.get("connectors", []),
        "activations": state.get("activations", []),
        "snapshot": {**state, "status": status},
        "recent_dispatches": [
            {"kind": record.kind, "occurred_at_ms": int(record.occurred_at * 1000), **record.payload}
            for record in recent
        ],
    }
    return msgspec.convert(document, Inspection)


def members(figures: TriggerFigures) -> Iterator[tuple[str, Any]]:
    """Yield the members of a version's entry that are about its trigger, with their names."""
    yield from {"accepted": figures.accepted, "running": 0, "waiting": figures.waiting}.items()
    yield from {"dead": figures.dead, "refused": figures.refused}.items()
    for name in ("last_success", "last_failure", "next_due"):
        at = getattr(figures, name)
        yield name, None if at is None else rfc3339(at)


def describe(found: Inspection) -> Iterator[str]:
    """Return the lines where there is no terminal: sections of ``- name=value name=value``."""
    snapshot = msgspec.to_builtins(found.snapshot)
    yield from section("Triggers:", found.triggers)
    yield from section("Connectors:", [{"provider": name} for name in found.connectors])
    yield from section("Snapshot:", [{name: value} for name, value in snapshot.items()])
    if found.dispatcher is not msgspec.UNSET:
        yield from section("Dispatcher:", [found.dispatcher])
    yield from section("Recent dispatches:", found.recent_dispatches[-SHOWN:])


def tables_of(found: Inspection, shown_dispatches: int) -> Iterator[Rows]:
    """Return the tables of a terminal: each version, and the newest attempts."""
    yield Rows(title="Triggers:", heading="Triggers", columns=TRIGGERS, rows=list(shown_once(found.triggers)))
    newest = found.recent_dispatches[-shown_dispatches:]
    yield Rows(title="Recent dispatches:", heading="Recent dispatches", columns=DISPATCHES, rows=newest)


def shown_once(triggers: Iterable[TriggerInfo]) -> Iterator[TriggerInfo]:
    """Return versions of which only the first of each trigger has the figures of that."""
    seen: set[str] = set()
    for each in triggers:
        yield msgspec.structs.replace(each, **NOT_AGAIN) if each.id in seen else each
        seen.add(each.id)


def ago(at: str | None) -> str | None:
    """Return how far a time (RFC 3339) is from now, for people: ``5m ago``, ``in 5m``."""
    if at is None:
        return None
    seconds = time.time() - datetime.fromisoformat(at).timestamp()
    size, unit = next(((size, unit) for size, unit in UNITS if abs(seconds) >= size), (1.0, "s"))
    return f"{seconds / size:.0f}{unit} ago" if seconds >= 0 else f"in {-seconds / size:.0f}{unit}"


def time_of(milliseconds: int) -> str:
    """Return a time (UTC) for people."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"


ALERTS = (
    Column("#", lambda alert: alert.index, is_right=True),
    Column("Alert", lambda alert: alert.name),
    Column("State", lambda alert: alert.state, styles={"firing": "red", "quiet": "green"}),
    Column("Since", lambda alert: alert.firing_since, drop=3),
    Column("Count", lambda alert: alert.count, drop=5, is_right=True),
    Column("Last sent", lambda alert: alert.last_sent, drop=2),
    Column("Pending", lambda alert: alert.pending, drop=1, is_right=True),
    Column("To", lambda alert: alert.target, drop=4),
    Column("Last error", lambda alert: alert.last_error, wraps=True, style="yellow"),
)


@click.command()
@with_place
@click.option("--test", "wanted", metavar="ALERT", help="Send a message of the alert with this name or number.")
@with_server
@with_json
def alerts(target: ServerTarget, wanted: str | None, as_json: bool) -> None:
    """List the alerts with their state, or send a message to see that it arrives."""
    from harn.alerts.operations import ListAlerts, TryAlert, list_alerts, try_alert

    if wanted is not None:
        answered = ask(target.client(), try_alert, TryAlert(alert=wanted))
        print_json(answered.document) if as_json else say_tested(answered.result)
        sys.exit(0 if answered.result.sent else 1)
    client = target.client_if_any()
    found = (
        stored_alerts(target.location.state_dir) if client is None else ask(client, list_alerts, ListAlerts()).result
    )
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(alert_rows(found.alerts))


def alert_rows(found: Sequence[AlertInfo]) -> Rows:
    """Return alerts as rows for people."""
    return Rows(title="Alerts:", columns=ALERTS, rows=found, none="no alerts")


def say_tested(tested: AlertTested) -> None:
    """Print whether a message of a test was accepted."""
    if tested.sent:
        click.echo(f"{visible(tested.name)}: sent to {visible(tested.target)}")
    else:
        print_error(f"{tested.name} cannot be sent to {tested.target}: {tested.error}")


def stored_alerts(state_dir: str) -> AlertList:
    """
    Return the alerts of the last server on a state directory, as they are stored.

    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    """
    from harn.alerts.model import PREFIX, AlertRecord
    from harn.alerts.operations import AlertList, describe_record
    from harn.cli.sources import open_store

    with open_store(state_dir) as store:
        kept = store.ask(store.checkpoints.beginning(PREFIX))
    records = []
    for key, value in kept.items():
        try:
            records.append((key.removeprefix(PREFIX), convert(value, AlertRecord)))
        except ValidationError:
            continue  # a server discards it, too
    records.sort(key=lambda each: (each[1].trigger_id or "", each[0]))
    return AlertList(alerts=tuple(describe_record(index, record) for index, (_, record) in enumerate(records, 1)))
