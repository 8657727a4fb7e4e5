"""The operation that lists the servers on one store."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from harn.clocks import rfc3339
from harn.operations.model import Caller, Get, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.store.servers import ServerRow

if TYPE_CHECKING:
    from harn.servers.membership import Membership


class ListServers(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class ServerInfo(Result, frozen=True, kw_only=True):
    """One server on the store."""

    id: Annotated[str, Meta(description="Its host and process id.")]
    incarnation: Annotated[int, Meta(description="Its number on the store; a new one after it was fenced.")]
    status: Annotated[str, Meta(description="starting, serving, draining, or silent.")]
    generation: Annotated[int, Meta(description="Its live generation; 0 before the first.")]
    url: Annotated[str | None, Meta(description="Of its listener; null until it serves.")]
    version: Annotated[str, Meta(description="Of harn.")]
    started_at: str
    last_seen: Annotated[str, Meta(description="Its last heartbeat, by its own clock.")]
    age_seconds: Annotated[
        float | None, Meta(description="Since its last heartbeat was seen, by the clock of the server that answers.")
    ] = None
    outstanding: Annotated[
        int | None, Meta(description="Deliveries that it has and has not ended, as of its last heartbeat.")
    ] = None
    not_ready: Annotated[
        tuple[str, ...] | None,
        Meta(description="Why it should get no requests, as of its last heartbeat; empty when it should."),
    ] = None
    leads: Annotated[bool, Meta(description="It does what one server of them all does, such as polling.")]
    is_this: Annotated[bool, Meta(description="It gave this answer.")]


class ServerList(Result, frozen=True, kw_only=True):
    """The servers on the store that have neither ended nor been fenced, the oldest first."""

    servers: tuple[ServerInfo, ...]


@operation("servers.list", role=Role.READ, route=Get("/servers"))
async def list_servers(members: Membership, caller: Caller, wanted: ListServers) -> ServerList:
    """
    List the servers on the store.

    :raises EventLogUnavailable: the store cannot be read.
    """
    rows, silent = await members.look()
    return ServerList(servers=tuple(_described(members, each, is_silent=each.incarnation in silent) for each in rows))


def _described(members: Membership, row: ServerRow, *, is_silent: bool) -> ServerInfo:
    age = members.age_of(row)
    if is_silent:
        return describe(row, status=SILENT, age=age)
    number = row.incarnation
    return describe(row, age=age, leads=number == members.leader, is_this=number == members.incarnation)


SILENT = "silent"
"""The status of a server whose heartbeat does not come, and that is not fenced so far."""


def describe(
    row: ServerRow, *, status: str = "", age: float | None = None, leads: bool = False, is_this: bool = False
) -> ServerInfo:
    """Return a server as users see it; ``status`` replaces the one in its note, and ``age`` is of its heartbeat."""
    return ServerInfo(
        id=server_id(row.host, row.pid),
        incarnation=row.incarnation,
        status=status or row.note.status,
        generation=row.note.generation,
        url=row.note.url or None,
        version=row.note.version,
        started_at=rfc3339(row.started_at),
        last_seen=rfc3339(row.seen_at),
        age_seconds=None if age is None else round(age, 1),
        outstanding=row.note.outstanding,
        not_ready=None if status == SILENT else row.note.not_ready,
        leads=leads,
        is_this=is_this,
    )


def server_id(host: str, pid: int) -> str:
    """Return the name of a server, for people and reports."""
    return f"{host}:{pid}"


def own_id() -> str:
    """Return the name of this server."""
    return server_id(socket.gethostname(), os.getpid())


def stored(rows: Iterable[ServerRow], silent_since: float) -> ServerList:
    """
    Return the servers as a command finds them in the store; which one leads is not known there.

    :param silent_since: a server whose last heartbeat is older does not run (seconds, Unix).
    """
    return ServerList(
        servers=tuple(describe(each, status=SILENT if each.seen_at < silent_since else "") for each in rows)
    )


OPERATIONS = (list_servers,)
"""Those of `Membership`."""
