"""The console, as a feature of a server."""

from __future__ import annotations

import hashlib
import os

from harn.auth.authenticator import LiveCredentials
from harn.console.assets import Assets
from harn.console.attempts import Attempts
from harn.console.desk import Desk
from harn.console.live import Live
from harn.console.now import NowPage
from harn.console.overview import Overviews
from harn.console.place import Console
from harn.console.reception import Reception
from harn.console.rendering import Renderer
from harn.console.sessions import Sessions
from harn.console.sign_in import ROOT, Door
from harn.console.traffic import Traffic
from harn.console.triggers import TriggerPages
from harn.listener.site import HarnSite
from harn.server import Server


def install(server: Server) -> None:
    """Mount the console at ``/console``."""
    wall, assets = server.wall, Assets()
    door = Door(
        wall=wall,
        credentials=server[LiveCredentials],
        records=server,
        sessions=Sessions(wall),
        attempts=Attempts(wall),
        cookie=cookie_of(server.options.state_dir),
    )
    desk = Desk(
        operations=server.operations,
        renderer=Renderer(assets),
        wall=wall,
        threads=server.threads,
        names_servers=server.store.is_shared,
    )
    overviews = Overviews(server.reactor)
    traffic = Traffic(wall, server.lifecycle)
    live = Live(server.reactor, desk, door, traffic, server.lifecycle)
    server.background.add_closing(live)
    now = NowPage(traffic=traffic, overviews=overviews, readiness=server.readiness)
    reception = Reception(door=door, desk=desk, assets=assets, live=live)
    console = Console(reception, now, TriggerPages(overviews=overviews))
    server[HarnSite].mount(ROOT, server.add(console))


def cookie_of(state_dir: str) -> str:
    """Return the name of a server's cookie: browsers send a cookie to all ports of a host."""
    return "harn_console_" + hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]
