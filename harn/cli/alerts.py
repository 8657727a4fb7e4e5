"""``harn orchestrator alerts``: how each alert stands, and a message to see that one arrives."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from msgspec import ValidationError, convert, to_builtins

from harn.alerts.model import PREFIX, AlertRecord
from harn.alerts.operations import (
    AlertInfo,
    AlertList,
    AlertTested,
    ListAlerts,
    TryAlert,
    describe_record,
    list_alerts,
    try_alert,
)
from harn.cli.client import ask
from harn.cli.offline import open_store
from harn.cli.options import with_json, with_place, with_server
from harn.cli.output import print_error
from harn.cli.place import ServerTarget
from harn.cli.rows import Column, Rows, draw, print_json
from harn.model.display import visible
from harn.store.sqlite.generations import SQLiteCheckpoints

COLUMNS = (
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
def alerts(wanted: str | None, as_json: bool, **given: Any) -> None:
    """List the alerts with their state, or send a message to see that it arrives."""
    target = ServerTarget.of_options(given, os.environ)
    if wanted is not None:
        answered = ask(target.client(), try_alert, TryAlert(alert=wanted))
        print_json(answered.document) if as_json else say_tested(answered.result)
        sys.exit(0 if answered.result.sent else 1)
    client = target.client_if_any()
    found = stored(target.location.state_dir) if client is None else ask(client, list_alerts, ListAlerts()).result
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(rows_of(found.alerts))


def rows_of(found: Sequence[AlertInfo]) -> Rows:
    """Return alerts as rows for people."""
    return Rows(title="Alerts:", columns=COLUMNS, rows=found, none="no alerts")


def say_tested(tested: AlertTested) -> None:
    """Print whether a message of a test was accepted."""
    if tested.sent:
        click.echo(f"{visible(tested.name)}: sent to {visible(tested.target)}")
    else:
        print_error(f"{tested.name} cannot be sent to {tested.target}: {tested.error}")


def stored(state_dir: str) -> AlertList:
    """
    Return the alerts of the last server on a state directory, as they are stored.

    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    :raises EventLogUnavailable: it cannot be read.
    """
    with open_store(state_dir) as store:
        kept = store.ask(SQLiteCheckpoints.beginning, PREFIX)
    records = []
    for key, value in kept.items():
        try:
            records.append((key.removeprefix(PREFIX), convert(value, AlertRecord)))
        except ValidationError:
            continue  # a server discards it, too
    records.sort(key=lambda each: (each[1].trigger_id or "", each[0]))
    return AlertList(alerts=tuple(describe_record(index, record) for index, (_, record) in enumerate(records, 1)))
