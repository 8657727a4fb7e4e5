"""The steps of a start: the first generation, the port, what an earlier server left unfinished, and its record."""

from __future__ import annotations

from twisted.logger import Logger

from harn.listener.credentials import LiveCredentials
from harn.listener.port import ServerPort
from harn.orchestrator.publish import Publisher
from harn.orchestrator.recovery import Predecessor, Recovery
from harn.orchestrator.status import identity, note_life
from harn.reload.coordinator import Coordinator
from harn.reload.report import ReloadReport
from harn.rollout.startup import Startup
from harn.server import Server

log = Logger(namespace="harn")

RECOVERY_LIMIT = 10
"""Restarts at which a delivery may be unfinished until it is given up."""


async def build_first_generation(server: Server) -> ReloadReport:
    """Build and adopt the first generation, which does not serve yet; see `Startup.run`."""
    server.started_at = server.wall.seconds()
    return await server[Startup].run(waits=True)


async def recover(server: Server, leaving: int | None = None, gone: int | None = None) -> int:
    """
    Take over what an earlier server left unfinished, unless the manifest leaves that to an operator; count it.

    :param leaving: the incarnation of a server that still runs and finishes its own.
    :param gone: the incarnation of a server whose process has just ended.
    """
    limit = RECOVERY_LIMIT if server.settings.recover == "auto" else None
    return await server[Recovery].start(Predecessor(leaving, gone), limit)


def open_port(server: Server, inherited: int | None = None) -> str:
    """
    Listen, with the certificate of the first generation; return the URL.

    :param inherited: the descriptor of a socket to listen on, whatever the options say.
    :raises ListenerUnusable: with a message that says what to do.
    """
    live = server[Coordinator].current
    return server[ServerPort].open(None if live is None else live.inputs.certificate, inherited)


async def note_start(server: Server, recovered: int) -> None:
    """
    Write down that the server serves, and warn if its admin API is closed.

    :param recovered: how many deliveries of earlier servers were taken over.
    """
    await server[Publisher].save_state()
    await note_life(server, "startup", identity(server))
    await note_life(server, "startup_stranded_envelopes", count=recovered)
    if not server[LiveCredentials].are_configured:
        log.warn(
            "no credentials are configured: a2a-push routes answer 401, and so does the admin API, but to commands"
            " on this state directory; set HARN_ORCHESTRATOR_API_KEYS or HARN_ORCHESTRATOR_HMAC_SECRET",
            announce=True,
        )
