"""``harn orchestrator inspect``: show what a server is and does, or what it was when it ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from harn.cli.fire import written
from harn.cli.place import Place, Reach
from harn.cli.shared import with_json, with_place, with_server
from harn.errors import HarnError
from harn.model.visible import visible
from harn.orchestrator.running import read_state

SHOWN = 5
"""Recent dispatches that are shown to people."""

SNAPSHOT = ("status", "bind", "generation", "digest", "last_reload")
OUTBOX = "trigger.outbox"
RECENT = 20


class NeverRan(HarnError):
    """No server has ever run on the state directory."""


@click.command()
@with_place
@with_server
@with_json
def inspect(as_json: bool, **given: Any) -> None:
    """Show triggers, connectors and recent dispatches."""
    reach = Reach.told(given, os.environ)
    client = reach.client_if_any()
    if client is None:
        found = inspect_offline(reach.place)
    else:
        found = client.get("/admin/inspect").expect_ok("triggers", "snapshot")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if sys.stdout.isatty():
        from harn.cli.terminal import print_inspection

        print_inspection(found, SHOWN)
        return
    for line in describe(found):
        click.echo(line)


def inspect_offline(place: Place) -> dict[str, Any]:
    """
    Show what the state file and the store tell of a server that does not run.

    :raises NeverRan: there is neither.
    """
    from harn.cli.offline import StoredRecords

    state = read_state(place.state_dir)
    if state is None:
        raise NeverRan(
            f"no server has run on {place.state_dir_name}; start one with: "
            f"harn orchestrator serve --config {place.manifest} --state-dir {place.state_dir_name}"
        )
    # A server that was killed could not say that it ended.
    status = "stopped" if state.get("status") == "stopped" else "crashed"
    recent = StoredRecords(place.state_dir).newest(OUTBOX, RECENT)
    return {
        "triggers": state.get("triggers", []),
        "connectors": state.get("connectors", []),
        "activations": state.get("activations", []),
        "snapshot": {**{name: state.get(name) for name in SNAPSHOT}, "status": status},
        "recent_dispatches": [
            {"kind": record["kind"], "occurred_at_ms": int(record["occurred_at"] * 1000), **record["payload"]}
            for record in recent
        ],
    }


def describe(found: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines where there is no terminal: sections of ``- name=value name=value``."""
    yield from section("Triggers:", found.get("triggers", ()))
    yield from section("Connectors:", [{"provider": name} for name in found.get("connectors", ())])
    yield from section("Snapshot:", [{name: value} for name, value in found.get("snapshot", {}).items()])
    if "dispatcher" in found:
        yield from section("Dispatcher:", [found["dispatcher"]])
    yield from section("Recent dispatches:", found.get("recent_dispatches", ())[-SHOWN:])


def section(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give a title and its rows, ``- none`` if it has none."""
    yield title
    for row in rows:
        yield "- " + visible(" ".join(f"{name}={written(value)}" for name, value in row.items()))
    if not rows:
        yield "- none"
