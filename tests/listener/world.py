"""A listener put together for tests: the real tree, channel, ingest and intake over a store in memory."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import frozen
from msgspec import Struct, to_builtins
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from harn.auth.authenticator import LiveCredentials
from harn.auth.credentials import Credentials
from harn.auth.keys import KeyRing
from harn.connectors.interfaces import CREDENTIALS, PUBLIC, Events, IReceiver, NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake
from harn.errors import PayloadInvalid, SignatureMismatch, SignatureMissing
from harn.lifecycle import Lifecycle
from harn.listener.admin import Admin
from harn.listener.admin_auth import AdminAuth
from harn.listener.admin_refusals import AdminRefusals
from harn.listener.admission import Admission
from harn.listener.ingest import Ingest
from harn.listener.pages import make_pages
from harn.listener.phases import Limits
from harn.listener.push import Push
from harn.listener.site import HarnSite, Places
from harn.listener.traced import TracedIngest, TracedPush
from harn.manifest.model import TriggerSpec
from harn.manifest.settings import OrchestratorSettings
from harn.model.delivery import NewDelivery
from harn.observability.metrics import Metrics
from harn.observability.subscribers import Counting
from harn.operations.registry import Audit, Operations
from harn.reload import operations as reload_operations
from harn.reload.interfaces import IReloader
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.results import LiveGenerationInfo
from harn.server import Readiness
from harn.testing.clients import MemoryClient, Wire, memory_client, request_bytes
from harn.testing.clocks import NoThreads, SteppedWall
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import KeyedPool
from harn.triggers.routing import Route

SECRET = b"secret"
KEY = "test-key"
START = 1_700_000_000.0


def signed(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    """Sign a body as `SignedReceiver` wants it."""
    return {"X-Signature": hmac.digest(secret, body, "sha256").hex()}


def signed_post(path: str, body: bytes = b'{"n":1}', **headers: str) -> bytes:
    """Write a request that `SignedReceiver` accepts."""
    return request_bytes("POST", path, {**signed(body), **{k.replace("_", "-"): v for k, v in headers.items()}}, body)


@implementer(IReceiver)
class SignedReceiver:
    """Verifies an HMAC of the body; makes of it what `answer` says, by default one event."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.seen: list[Any] = []
        self.closed = 0

    def prepare(self) -> None:
        """Do nothing."""

    def activate(self) -> None:
        """Do nothing."""

    def quiesce(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        self.closed += 1

    def verify(self, inbound: Any, now: float) -> None:
        given = inbound.headers.get("x-signature")
        if given is None:
            raise SignatureMissing("X-Signature is missing")
        if not hmac.compare_digest(hmac.digest(SECRET, inbound.body, "sha256").hex().encode(), given.encode("latin-1")):
            raise SignatureMismatch("X-Signature is wrong")

    def normalize(self, inbound: Any) -> Any:
        self.seen.append(inbound)
        if callable(self.answer):
            return self.answer(inbound)
        if self.answer is not None:
            return self.answer
        if not inbound.body:
            raise PayloadInvalid("the body is empty")
        return Events((event(inbound.headers.get("x-delivery", "d1")),))


def event(dedupe_key: str = "d1", kind: str = "thing.happened") -> NormalizedEvent:
    return NormalizedEvent(kind=kind, dedupe_key=dedupe_key)


@implementer(IReloader)
class StubReloader:
    """Returns the report that a test sets, when the test fires it."""

    def __init__(self) -> None:
        self.generation = 7
        self.etag = '"7-abc"'
        self.asked: list[ReloadRequest] = []
        self.report: Any = None
        self.waiting: Deferred[ReloadReport] | None = None
        self.cancelled = False

    def reload(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        self.asked.append(request)
        if self.waiting is not None:
            return self.waiting
        if isinstance(self.report, Exception):
            return fail(self.report)
        if self.report is not None:
            return succeed(self.report)
        return succeed(self.ok(request))

    def ok(self, request: ReloadRequest) -> ReloadReport:
        return ReloadReport(
            status="ok", source=request.source, actor=request.actor, generation=8, digest="sha256:0", modified=("gh",)
        )

    def describe(self) -> Deferred[LiveGenerationInfo]:
        described = LiveGenerationInfo(
            generation=self.generation,
            digest="sha256:0",
            drift=False,
            last_failed=None,
            waiting=None,
            probation=None,
            ramps=(),
        )
        return succeed(described)


@frozen
class Trigger:
    """One trigger of the world: its binding version, its receiver, its route."""

    binding: BindingVersion
    receiver: SignedReceiver
    route: Route


class ReceiverPool(KeyedPool[SignedReceiver]):
    """The receivers of triggers."""

    async def close(self, value: SignedReceiver) -> None:
        """See `KeyedPool.close`."""
        value.close()


class World:
    """
    Everything that a listener needs; serves trigger ``gh`` on ``/hooks/gh`` and ``push`` on ``/a2a/push``.
    """

    def submit(self, delivery_id: int, binding: BindingVersion, new: NewDelivery) -> None:
        """See `Dispatcher.submit`."""
        self.submitted.append(binding)

    def turn(self) -> None:
        """See `Dispatcher.turn`."""

    def handed_over(self) -> None:
        """See `Dispatcher.handed_over`."""

    def __init__(self, limits: Limits | None = None, clock: Any = None, *, is_traced: bool = False) -> None:
        self.clock = Clock() if clock is None else clock
        if clock is None:
            self.clock.advance(START)
        self.wall = SteppedWall(self.clock)
        self.metrics = Metrics()
        self.lifecycle = Lifecycle()
        Counting(self.metrics, self.lifecycle)
        self.store = PumpedStore(self.wall)
        self.store.open()
        self.submitted: list[BindingVersion] = []
        self.admission = Admission(self.clock)
        self.intake = Intake(self.clock, self.store.inbox, cast("Dispatcher", self), self.lifecycle)
        self.threads: list[Callable[[], None]] = []
        self.reloader = StubReloader()
        self.ring = KeyRing()
        self.credentials = LiveCredentials(None, self.ring)
        self.credentials.replace(Credentials(keys=(KEY.encode(),), hmac_secret=b"hmac-secret"))
        self.readiness = Readiness()
        self.readiness.phase = None
        self.recorded: list[tuple[str, str, Mapping[str, Any]]] = []
        parts = (self.clock, self.intake, self.admission, self.lifecycle, cast("Any", self), self.credentials)
        self.ingest = TracedIngest(*parts) if is_traced else Ingest(*parts)
        self.site = HarnSite(
            self.clock,
            self.metrics,
            Places(
                public=self.ingest,
                credentials=TracedPush(*parts) if is_traced else Push(*parts),
                pages=make_pages(self.metrics, self.readiness, NoThreads()),
            ),
            limits=limits,
            wall=self.wall,
        )
        self.operations = Operations(Audit(wall=self.clock, records=self))
        self.operations.add(self.reloader, *reload_operations.OPERATIONS)
        self.mount_admin()
        self.receivers = ReceiverPool()
        self.gh = self.trigger("gh", "/hooks/gh")
        self.push = self.trigger("push", "/a2a/push", CREDENTIALS)
        self.push.receiver.verify = lambda inbound, now: None
        self.serve(1, self.gh, self.push)
        self.site.doStart()

    def mount_admin(self) -> None:
        """Mount the admin API, with the operations that there are by now."""
        auth = AdminAuth(wall=self.wall, credentials=self.credentials, inbox=self.store.inbox)
        self.site.mount("/admin", Admin(auth, self.operations, AdminRefusals(self.clock, self.wall, self)))

    async def note(self, topic: str, kind: str, payload: Struct) -> None:
        self.recorded.append((topic, kind, to_builtins(payload)))

    def call(self, function: Callable[..., Any], /, *arguments: Any) -> Deferred[Any]:
        """Keep the calls for a thread until the test runs them."""
        waiting: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                result = function(*arguments)
            except BaseException:
                waiting.errback()
            else:
                waiting.callback(result)

        self.threads.append(run)
        return waiting

    def trigger(
        self, trigger_id: str, path: str, authentication: str = PUBLIC, version: int = 1, **spec: Any
    ) -> Trigger:
        """Make a trigger; it is served once it is passed to `serve`."""
        made = TriggerSpec(id=trigger_id, kind="webhook", provider="test", path=path, handler="m:f", **spec)
        binding = BindingVersion(Definition.of(made, "f", "h", None), version, "bundle")
        receiver = SignedReceiver()
        shared = self.receivers.add((trigger_id, version, id(receiver)), receiver)
        route = Route(path=path, binding=binding, receiver=shared, authentication=authentication)
        return Trigger(binding, receiver, route)

    def serve(self, generation: int, *triggers: Trigger) -> None:
        """Swap to exactly these triggers."""
        tree = self.site.build({each.route.path: each.route for each in triggers})
        self.site.swap(tree, generation)

    def configure(self, **settings: Any) -> None:
        """Apply other settings to the site."""
        self.site.apply(OrchestratorSettings(**settings))

    def wire(self, peer: str = "127.0.0.1") -> Wire:
        """Open a connection."""
        return Wire(self.site, IPv4Address("TCP", peer, 31337))

    def client(self) -> MemoryClient:
        """Make a treq client."""
        return memory_client(self.site, self.clock)

    def advance(self, seconds: int) -> None:
        """Move the clock on, second by second."""
        for _ in range(seconds):
            self.clock.advance(1)
