"""The page of the servers on one store: which live, what each serves and has to do, and who came and went."""

from __future__ import annotations

from msgspec import Struct

from harn.console.desk import Desk, Visit
from harn.console.records import read_records
from harn.console.sign_in import ROOT
from harn.listener.problems import Response
from harn.servers.membership import TOPIC
from harn.servers.operations import ListServers, ServerInfo, list_servers
from harn.store.servers import SERVING

SERVERS = f"{ROOT}/servers"


class Differences(Struct, frozen=True, kw_only=True):
    """
    The generations and versions of harn that servers differ in; empty where all have the same.

    :ivar generations: rising.
    :ivar versions: in the order of the servers.
    """

    generations: tuple[int, ...]
    versions: tuple[str, ...]


async def show_list(desk: Desk, visit: Visit) -> Response:
    """Show the servers, and a page of the records about them, the newest first."""
    servers = (await desk.run(visit, list_servers, ListServers())).servers
    records = await read_records(desk, visit, TOPIC)
    return await desk.show(
        visit,
        "servers_part.html" if visit.is_part else "servers.html",
        servers=servers,
        differ=differences(servers),
        records=records,
        here=SERVERS if records.before is None else f"{SERVERS}?before={records.before}",
    )


def differences(servers: tuple[ServerInfo, ...]) -> Differences:
    """Return the differences of servers: in the generation only of those that serve."""
    generations = {each.generation for each in servers if each.status == SERVING}
    versions = dict.fromkeys(each.version for each in servers if each.version)
    return Differences(
        generations=tuple(sorted(generations)) if len(generations) > 1 else (),
        versions=tuple(versions) if len(versions) > 1 else (),
    )
