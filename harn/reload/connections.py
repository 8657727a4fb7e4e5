"""
The connectors of generations: new or changed triggers get new ones, unchanged triggers keep theirs.

Generations share a connector by its key: provider, trigger, configuration, and the hashes of its secrets. So editing
one of a hundred schedules restarts one connector, and a rotated secret replaces only the connectors that use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.connectors.catalog import Catalog
from harn.connectors.fetching import DocumentState
from harn.connectors.gate import Gate
from harn.connectors.interfaces import (
    ConnectorBinding,
    ConnectorContext,
    IConnector,
    IEarlyReceiver,
    IKeyedReceiver,
    IReceiver,
    Normalized,
    NormalizedEvent,
)
from harn.connectors.published import PublishedLists
from harn.connectors.receivers import SignedConnector
from harn.connectors.signing_keys import SecretUnusable
from harn.errors import StageFailed
from harn.manifest.model import TriggerSpec
from harn.model.exchange import InboundRequest
from harn.model.networks import split_sources
from harn.reload.inputs import Inputs
from harn.triggers.pool import KeyedPool, Shared
from harn.triggers.reconcile import Plan
from harn.waiting import ask, limited
from harn.wire import digest_value

log = Logger(namespace="harn.reload")

WARMING = 3.0
"""Seconds for which a reload waits until the documents that senders publish are fetched."""
CLOSING = 5.0
"""Seconds after which a connector that is being closed is no longer waited for."""


class RunningConnector(Struct, frozen=True, kw_only=True, eq=False):
    """
    The connector of one trigger, and the gate for the events that it starts itself.

    :ivar takes_requests: whether the connector is a receiver, whose requests are passed to `verify` and `normalize`.
    :ivar checks_headers: whether it can refuse requests before their body is read.
    :ivar keyed: the connector, if it fetches the keys of its sender; else None.
    :ivar always_claim: whether the provider's own dedupe key is claimed if the trigger names none.
    :ivar final_headers: header lines of the answers that a repeated request would not change; each ends in CRLF.
    :ivar credential_headers: the names, in lower case, of headers that hold a secret of the trigger; these headers are
        not stored.
    """

    trigger_id: str
    connector: Any
    gate: Gate
    authentication: str
    takes_requests: bool = False
    checks_headers: bool = False
    keyed: Any = None
    always_claim: bool = False
    final_headers: bytes = b""
    credential_headers: tuple[str, ...] = ()

    @classmethod
    def of(cls, trigger_id: str, connector: IConnector, gate: Gate, authentication: str) -> RunningConnector:
        """Put a connector behind its gate."""
        if not IReceiver.providedBy(connector):
            return cls(trigger_id=trigger_id, connector=connector, gate=gate, authentication=authentication)
        return cls(
            trigger_id=trigger_id,
            connector=connector,
            gate=gate,
            authentication=getattr(connector, "authentication", authentication),
            takes_requests=True,
            checks_headers=IEarlyReceiver.providedBy(connector),
            keyed=connector if IKeyedReceiver.providedBy(connector) else None,
            always_claim=bool(getattr(connector, "always_claim", False)),
            final_headers=connector.final_headers if isinstance(connector, SignedConnector) else b"",
            credential_headers=tuple(getattr(connector, "credential_headers", ())),
        )

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """See `IReceiver.verify`."""
        self.connector.verify(inbound, now)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """See `IReceiver.normalize`."""
        found: Normalized = self.connector.normalize(inbound)
        return found

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """See `IEarlyReceiver.check_headers`; nothing is checked for a receiver that needs the body."""
        if self.checks_headers:
            self.connector.check_headers(headers)

    def warm(self) -> Deferred[None] | None:
        """Fetch the sender's keys for the first request; return the fetch under way, or None if there is none."""
        warm = getattr(self.keyed, "warm", None)
        return None if warm is None else warm()

    def document(self) -> DocumentState | None:
        """Return the state of the document with the sender's keys; None if no keys are fetched."""
        document = getattr(self.keyed, "document", None)
        return None if document is None else document()

    def example(self) -> NormalizedEvent | None:
        """Return an example of an event from its provider, with its body; None if the connector has no example."""
        example = getattr(self.connector, "example", None)
        return None if example is None else example()


def configured(spec: TriggerSpec) -> list[Any]:
    """Return the configuration of a trigger's connector, without its secrets."""
    return [spec.provider, spec.id, spec.kind, spec.path, spec.events, spec.settings]


def connector_key(spec: TriggerSpec, secret_hashes: Mapping[str, str]) -> str:
    """Return the key under which generations share a trigger's connector."""
    hashes = {name: [secret_hashes[text] for text in texts] for name, texts in spec.secrets.items()}
    return digest_value([*configured(spec), hashes])


def needing_connectors(inputs: Inputs, plan: Plan, live: Inputs | None) -> list[str]:
    """Return the ids of the triggers that are changed or have a changed secret: their connector's key may differ."""
    if live is None:
        return list(inputs.manifest.triggers)
    old, new = live.manifest.triggers, inputs.manifest.triggers
    changed = [*plan.added, *(each for each in plan.modified if _is_changed(old[each], new[each]))]
    rotated = {text for text, value in inputs.secret_hashes.items() if live.secret_hashes.get(text) != value}
    if rotated:
        known = set(changed)
        changed.extend(
            trigger_id
            for trigger_id, spec in inputs.manifest.triggers.items()
            if trigger_id not in known and any(text in rotated for texts in spec.secrets.values() for text in texts)
        )
    return changed


def _is_changed(old: TriggerSpec, new: TriggerSpec) -> bool:
    return old is not new and (configured(old), old.secrets) != (configured(new), new.secrets)


class ConnectorPool(KeyedPool[RunningConnector]):
    """The connectors of generations, by their key."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock

    async def close(self, value: RunningConnector) -> None:
        """Close a connector, within `CLOSING` seconds. A failure to close is logged."""
        try:
            (outcome,) = await ask(lambda: value.connector.close()).addTimeout(CLOSING, self._clock)
        except TimeoutError:
            log.error(
                "the connector of {trigger} did not close in {seconds} s", trigger=value.trigger_id, seconds=CLOSING
            )
            return
        if isinstance(outcome, Failure):
            log.failure("the connector of {trigger} failed to close", outcome, trigger=value.trigger_id)


class Connections:
    """Makes, prepares, activates and ends connectors; owns the pool of the connectors in use."""

    def __init__(self, clock: IReactorTime, catalog: Catalog, wall: WallTime | None = None) -> None:
        self._clock = clock
        self._wall: WallTime = wall or clock
        self.catalog = catalog
        self.pool = ConnectorPool(clock)
        self.published: PublishedLists | None = None

    async def prepare(
        self, inputs: Inputs, trigger_ids: list[str], stack: AsyncExitStack
    ) -> dict[str, Shared[RunningConnector]]:
        """
        Return a prepared connector, shared or new, for each of ``trigger_ids``; ``stack`` holds each once.

        :raises StageFailed: connectors refused (stage ``prepare``); each problem names its trigger.
        """
        found: dict[str, Shared[RunningConnector]] = {}
        failed: list[StageFailed] = []
        for trigger_id in trigger_ids:
            spec = inputs.manifest.triggers[trigger_id]
            key = connector_key(spec, inputs.secret_hashes)
            shared = self.pool.acquire(key)
            if shared is None:
                try:
                    shared = await self._make(key, spec, inputs)
                except StageFailed as error:
                    failed.append(error)
                    continue
            stack.callback(shared.release)
            found[trigger_id] = shared
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            problems = [problem for error in failed for problem in error.problems]
            raise StageFailed("prepare", f"{failed[0]}{more}", problems) from failed[0]
        await self._warm(inputs, found.values())
        return found

    async def _warm(self, inputs: Inputs, connectors: Iterable[Shared[RunningConnector]]) -> None:
        """
        Fetch the keys of new connectors, and lists of addresses, before the first request needs them.

        The reload waits only a moment. Longer fetches continue in the background, and their routes answer 503 until
        they end.
        """
        waiting = [each for shared in connectors if (each := shared.value.warm()) is not None]
        if self.published is not None:
            allowing = (spec.allow_from for spec in inputs.manifest.triggers.values() if spec.allow_from)
            waiting += self.published.warm({name for texts in allowing for name in split_sources(texts)[1]})
        if waiting:
            ended = DeferredList([_echo(each) for each in waiting], consumeErrors=True)
            with suppress(TimeoutError):
                await limited(ended, WARMING, self._clock)

    async def _make(self, key: str, spec: TriggerSpec, inputs: Inputs) -> Shared[RunningConnector]:
        plugin = self.catalog.plugin(spec.provider)
        gate = Gate()

        def make() -> Any:
            settings = None if plugin.schema is None else plugin.schema.check(spec.settings or {})[0]
            binding = ConnectorBinding(
                trigger_id=spec.id,
                provider=spec.provider,
                kind=spec.kind,
                path=spec.path,
                events=spec.events,
                settings=settings,
                secrets={name: tuple(inputs.secrets[text] for text in texts) for name, texts in spec.secrets.items()},
            )
            made = plugin.connector(ConnectorContext(clock=self._clock, wall=self._wall, binding=binding, gate=gate))
            if not IConnector.providedBy(made):
                raise TypeError(f"its plugin must make an IConnector, got {made!r}")
            return RunningConnector.of(spec.id, made, gate, plugin.authentication)

        running: RunningConnector = await self._result("prepare", spec.id, ask(make), inputs)
        shared = self.pool.add(key, running)
        try:
            await self._result("prepare", spec.id, ask(lambda: running.connector.prepare()), inputs)
        except BaseException:
            shared.release()
            raise
        return shared

    async def activate(self, connectors: Mapping[str, Shared[RunningConnector]], inputs: Inputs) -> None:
        """
        Activate connectors that no generation holds so far, in the order of the manifest.

        :raises StageFailed: a connector failed (stage ``activate``).
        """
        for trigger_id, shared in connectors.items():
            if shared.holders == 1:
                await self._result("activate", trigger_id, ask(partial(_activate, shared.value)), inputs)

    async def _result(self, stage: str, trigger_id: str, asked: Deferred[tuple[Any]], inputs: Inputs) -> Any:
        """
        Return the result of a plugin that was called with `ask`.

        :raises StageFailed: the plugin raised an exception of any class.
        """
        (outcome,) = await asked
        if not isinstance(outcome, Failure):
            return outcome
        error = outcome.value
        if isinstance(error, StageFailed):
            message = str(error)
        else:
            log.failure("connector of trigger {trigger} failed to {stage}", outcome, trigger=trigger_id, stage=stage)
            message = f"{type(error).__name__}: {error}"
        key, said, hint = "provider", f"its connector failed to {stage}: {message}", ""
        if isinstance(error, SecretUnusable):
            key, said = error.key, f"the value of the secret cannot be used: {error.why}"
            hint = "give the secret another value, then reload"
        problem = inputs.loaded.problem(trigger_id, key, said, hint)
        raise StageFailed(stage, f"connector of trigger {trigger_id!r} failed to {stage}: {message}", [problem])


def _echo(work: Deferred[None]) -> Deferred[None]:
    """Return a Deferred that fires when ``work`` has succeeded or failed; cancelling it does not cancel ``work``."""
    echo: Deferred[None] = Deferred()

    def ended(result: Any) -> Any:
        if not echo.called:
            echo.callback(None)
        return result

    work.addBoth(ended)
    return echo


def _activate(running: RunningConnector) -> Any:
    return running.connector.activate()


def quiesce(running: RunningConnector) -> None:
    """Shut the gate and stop the connector. Called while adopting: an exception of the connector is only logged."""
    running.gate.shut()
    try:
        running.connector.quiesce()
    except BaseException:
        log.failure("a connector failed to quiesce")
