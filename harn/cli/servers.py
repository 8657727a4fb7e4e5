"""``harn orchestrator servers``: the servers that share a store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click
from msgspec import to_builtins

from harn.cli.client import ask
from harn.cli.options import with_json, with_place
from harn.cli.place import ServerTarget, Sleep, Wait, may_come_back, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.errors import HarnError
from harn.servers.operations import ListServers, ServerInfo, ServerList, list_servers, stored
from harn.store.recovery import LAPSE

COLUMNS = (
    Column("Server", lambda server: server.id + ("*" if server.is_this else "")),
    Column(
        "Status",
        lambda server: server.status,
        styles={"serving": "green", "starting": "yellow", "draining": "yellow", "silent": "red"},
    ),
    Column("Ready", lambda server: readiness_of(server), drop=1, styles={"yes": "green"}),
    Column("Generation", lambda server: server.generation or None, is_right=True),
    Column("Outstanding", lambda server: server.outstanding, drop=5, is_right=True),
    Column("URL", lambda server: server.url, drop=3),
    Column("Leads", lambda server: "yes" if server.leads else None, drop=4),
    Column("Last seen", lambda server: server.last_seen, drop=2),
    Column("Version", lambda server: server.version or None, drop=6),
)
INTERVAL = 1.0
"""Seconds between two looks."""


@click.command()
@with_place
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@with_server
@with_json
def servers(target: ServerTarget, watch: bool, as_json: bool) -> None:
    """List the servers that share the store; a star marks the one that answers."""
    if not watch:
        found = read(target)
        print_json(to_builtins(found)) if as_json else draw(rows_of(found.servers))
        return
    try:
        show_watched(target, Sleep(), as_json)
    except KeyboardInterrupt:
        return


def read(target: ServerTarget) -> ServerList:
    """
    Return the servers, as the one of the state directory lists them, or, while that does not run, as the store does.

    :raises HarnError: they cannot be read.
    """
    client = target.client_if_any()
    if client is not None:
        listed: ServerList = ask(client, list_servers, ListServers()).result
        return listed
    from harn.cli.sources import open_store

    with open_store(target.location.state_dir) as store:
        return stored(store.ask(store.servers.look()).rows, time.time() - LAPSE)


def readiness_of(server: ServerInfo) -> str | None:
    """Return ``yes``, or why a server should get no requests; None where it does not say so."""
    return None if server.not_ready is None else "; ".join(server.not_ready) or "yes"


def rows_of(found: Sequence[ServerInfo]) -> Rows:
    """Return servers as rows for people."""
    return Rows(title="Servers:", columns=COLUMNS, rows=found, none="no server runs")


def show_watched(target: ServerTarget, pause: Wait, as_json: bool) -> None:
    """Show the servers again and again: on a terminal in place, else each time below the last."""
    found = snapshots(target, pause)
    if as_json:
        for each in found:
            print_json(to_builtins(each))
        return
    from harn.cli.terminal import watch_rows

    watch_rows(rows_of(each.servers) for each in found)


def snapshots(target: ServerTarget, pause: Wait) -> Iterator[ServerList]:
    """
    Yield the servers, again and again; while they cannot be read, which may end, nothing.

    :raises HarnError: the first look failed, or the server refuses to answer.
    """
    has_answered = False
    while True:
        try:
            yield read(target)
            has_answered = True
        except HarnError as error:
            if not has_answered or not may_come_back(error):
                raise
        pause.wait(INTERVAL)
