"""A server in the test's process with a console on a real site, and a browser of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from twisted.internet.address import IPv4Address

from harn.auth.authenticator import LiveCredentials
from harn.auth.credentials import Credentials
from harn.auth.keys import KeyRing
from harn.circuits import feature as circuits
from harn.console import feature as console
from harn.deliveries import feature as deliveries
from harn.dispatch import feature as dispatch
from harn.errors import HandlerRejected
from harn.history import feature as history
from harn.listener.endpoint import Bind
from harn.listener.place import Place
from harn.listener.port import ServerPort
from harn.listener.site import HarnSite, Places
from harn.model.event_trace import TraceContexts
from harn.operations.registry import TOPIC
from harn.orchestrator import status
from harn.orchestrator.publish import StateLines
from harn.orchestrator.status import ServerStatus
from harn.servers import feature as servers
from harn.statistics import feature as statistics
from harn.testing.clients import Wire, WireAnswer, request_bytes
from tests.reload.world import World, fake, github

KEY = "first-key"
TOKEN = "token-of-the-state-directory"
HOST = "harn.test"
FORM = "application/x-www-form-urlencoded"


@frozen
class Nobody(Place):
    """A place that answers nothing."""


class ConsoleWorld(World):
    """
    See the module.

    :ivar credentials: those of the server; `LiveCredentials.replace` is what a reload does. ``ring``: its named keys.
    """

    def __init__(self, root: Path, traces: TraceContexts | None = None) -> None:
        super().__init__(root)
        server = self.server
        servers.install(server)
        servers.install_condition(server)
        server.traces = traces
        self.site = HarnSite(self.clock, self.metrics, Places(public=Nobody(), credentials=Nobody()), wall=server.wall)
        server.add(self.site)
        server.add(ServerPort(server.reactor, Bind("127.0.0.1", 0), self.site))
        self.ring = KeyRing()
        self.credentials = server.add(LiveCredentials(TOKEN.encode(), self.ring))
        self.credentials.replace(Credentials(keys=(KEY.encode(),)))
        statistics.install_totals(server)
        server.add(ServerStatus(server, StateLines()))
        server.add(self.recovery)
        history.install(server)
        deliveries.install(server)
        circuits.install(server)
        statistics.install(server)
        dispatch.install_synthetic_events(server)
        status.install(server)
        console.install(server)
        self.site.doStart()
        self.manifest(github("a"), fake("b"))
        self.started = self.start()

    def browser(self, peer: str = "10.0.0.1") -> Browser:
        """Return a browser that has not signed in."""
        return Browser(self, peer)

    def signed_in(self, key: str = KEY) -> Browser:
        """Return a browser that has signed in."""
        browser = self.browser()
        answer = browser.sign_in(key)
        assert answer.status == 303, answer
        return browser

    def die(self, trigger_id: str = "a", key: str = "d", why: str = "no") -> str:
        """Make a delivery of a trigger a dead letter; return its event id."""
        taking: Any = self.take(trigger_id, key)
        (event_id,) = taking.result.event_ids
        while self.calls:
            self.calls[-1].raises(HandlerRejected(why))
            self.clock.advance(0)
        return str(event_id)

    def audited(self) -> list[dict[str, Any]]:
        """Return the payloads of all audit records."""
        reading: Any = self.store.event_log.read(TOPIC, 0, 100)
        return [record.payload for record in reading.result]


class Browser:
    """
    Sends requests as a browser does: with its cookies and origin.

    :ivar cookies: by name.
    """

    def __init__(self, world: ConsoleWorld, peer: str) -> None:
        self._world = world
        self._peer = IPv4Address("TCP", peer, 31337)
        self.cookies: dict[str, str] = {}

    def request(self, method: str, target: str, body: bytes = b"", **headers: Any) -> WireAnswer:
        """Send a request on a connection of its own; keep the cookies of the answer."""
        named = {"Host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies:
            named["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        wire = Wire(self._world.site, self._peer).send(request_bytes(method, target, named, body))
        while not wire.transport.value():  # an answer that waits for a job
            self._world.clock.advance(0.1)
        answer = wire.answer()
        if "set-cookie" in answer.headers:
            name, _, rest = answer.headers["set-cookie"].partition("=")
            self.cookies[name] = rest.partition(";")[0]
        return answer

    def get(self, path: str, **headers: Any) -> WireAnswer:
        """Send a GET to a page; ``path`` is below ``/console``."""
        return self.request("GET", f"/console{path}", **headers)

    def page(self, path: str) -> str:
        """Return the text of a page that is there."""
        answer = self.get(path)
        assert answer.status == 200, (path, answer.status)
        return answer.body.decode("utf-8")

    def post(self, path: str, fields: dict[str, str], **headers: str) -> WireAnswer:
        """Send a form, as a page of this console does."""
        sent: dict[str, Any] = {"Content_Type": FORM, "Origin": f"http://{HOST}", **headers}
        return self.request("POST", f"/console{path}", urlencode(fields).encode(), **sent)

    def sign_in(self, key: str, **headers: str) -> WireAnswer:
        """Send the form with a key."""
        return self.post("/login", {"key": key, "next": "/console/deliveries"}, **headers)

    def token(self) -> str:
        """Return the token of the session from a page."""
        return between(self.page("/deliveries"), 'name="csrf" value="', '"')

    def act(self, path: str, **fields: str) -> WireAnswer:
        """Send a form with the token of the session."""
        return self.post(path, {"csrf": self.token(), **fields})

    def follow(self, answer: WireAnswer) -> str:
        """Return the page that an answer sends the browser to."""
        assert answer.status == 303, (answer.status, answer.body)
        return self.page(answer.headers["location"].partition("#")[0].removeprefix("/console"))


def between(text: str, before: str, after: str) -> str:
    """Return the text between two others, the first time."""
    return text.partition(before)[2].partition(after)[0]
