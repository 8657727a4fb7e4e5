"""Each live setting, in a server that is given two manifests in turn: the second one's value is what counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.api_keys.feature import install as install_keys
from harn.auth.authenticator import LiveCredentials
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.feature import install as install_dispatch
from harn.errors import RateExceeded, Saturated
from harn.listener.admission import Admission
from harn.listener.feature import REMEMBERED
from harn.listener.feature import install as install_listener
from harn.listener.site import HarnSite
from harn.manifest.changes import LIVE_SETTINGS
from harn.options import ServeOptions
from harn.orchestrator.assemble import follow_log_level
from harn.orchestrator.maintenance import RetentionRules
from harn.orchestrator.steps import drain_limits
from harn.reload.feature import apply_settings
from harn.reload.report import ReloadReport, ReloadRequest
from harn.rollout.model import Probation, terms
from harn.server import Runtime, Server
from harn.store.retention import RetentionPolicy, RetentionService
from tests.reload.fakes import START
from tests.reload.world import HANDLERS, World, fake

OPTIONS = ServeOptions(manifest="", manifest_name="", state_dir="", host="", port=0)
A_DAY = 86400.0


class SettingsWorld:
    """Generations of a `World`, adopted by the features of a server that take settings."""

    def __init__(self, root: Path, options: ServeOptions = OPTIONS) -> None:
        self.world = World(root)
        self.world.write("handlers.py", HANDLERS)
        self.world.write("rules/one.py", "X = 1\n")
        self.world.write("rules/two.py", "X = 2\n")
        clock = self.world.clock
        interpreters: Any = Service()
        told = evolve(options, state_dir=str(root))
        self.server = Server(Runtime(clock, clock), told, {}, self.world.lifecycle, self.world.store, interpreters)
        self.server.add(self.world.rollouts)
        self.levels: list[str] = []
        level: Any = SimpleNamespace(change=self.levels.append)
        follow_log_level(self.server, level)
        install_dispatch(self.server)
        install_keys(self.server)
        install_listener(self.server)
        apply_settings(self.server)
        self.dispatcher, self.admission = self.server[Dispatcher], self.server[Admission]
        self.site = self.server[HarnSite]

    def retention(self) -> RetentionRules:
        """Return the rules by which rows are trimmed."""
        return RetentionRules(self.server)

    def ask(self, head: str, *triggers: str) -> Deferred[ReloadReport]:
        """Write a manifest, and start or reload with it."""
        self.world.manifest(*triggers, head=head)
        return self.world.reload() if self.world.coordinator.current else self.world.start()

    def request(self) -> str:
        """Request admission to trigger ``a``; give the refusal, and "" when there is none."""
        try:
            self.admission.admit("a", 0)
        except (RateExceeded, Saturated) as refusal:
            return f"{type(refusal).__name__}, {refusal.retry_after} s"
        return ""

    def requests(self) -> tuple[int, str]:
        """Return how many requests pass at once when every bucket is full, and the refusal of the next."""
        self.world.clock.advance(A_DAY)
        for count in range(50):
            refusal = self.request()
            if refusal:
                return count, refusal
        return 50, ""

    def pending(self, events: int, length: int) -> list[str]:
        """Request admission while so many undurable events, of this size each, are held."""
        answers = []
        for _ in range(events):
            answers.append(self.request())
            self.admission.pending_bytes += length
            self.admission.pending_events += 1
        self.admission.pending_bytes = self.admission.pending_events = 0
        return answers

    def drains_for(self) -> float:
        """Replace a version that is busy; give the seconds after which it is moved on."""
        world = self.world
        world.clock.advance(1.0)  # each edit is another
        busy = world.version("a")
        busy.lease()
        before = {call.getTime() for call in world.clock.getDelayedCalls()}
        world.write("handlers.py", HANDLERS + f"# {world.clock.seconds()}\n")
        done: list[Any] = []
        world.reload().addCallback(done.append)
        (timer,) = (call for call in world.clock.getDelayedCalls() if call.getTime() not in before)
        seconds = timer.getTime() - world.clock.seconds()
        busy.release()
        return seconds

    def stage_takes(self) -> float:
        """Reload with a connector that hangs; give the seconds after which that is given up."""
        world = self.world
        world.plugin.script["prepare"] = Deferred
        world.write("harn.toml", (world.root / "harn.toml").read_text() + fake("slow"))
        done: list[ReloadReport] = []
        world.reload().addCallback(done.append)
        started = world.clock.seconds()
        while not done and world.clock.seconds() < started + 100:
            world.clock.advance(0.5)
        del world.plugin.script["prepare"]
        assert done[0].timed_out, done
        return world.clock.seconds() - started

    def trims_by(self) -> RetentionPolicy:
        """Run the background service once; return the policy that it trims by."""
        policies: list[RetentionPolicy] = []

        class Store:
            """One that has nothing to trim."""

            def trim(self, policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
                policies.append(policy)
                return succeed(0)

            def shrink(self, pages: int) -> Deferred[int]:
                return succeed(0)

        store: Any = Store()
        Deferred.fromCoroutine(RetentionService(self.world.clock, store, self.retention()).sweep())
        (policy,) = policies
        return policy

    def probation(self) -> Probation | None:
        """Return the probation that a generation adopted now would be on."""
        current = self.world.coordinator.current
        assert current is not None
        plain = ReloadRequest(source="cli", actor="test")
        return terms(plain, current.inputs.manifest.orchestrator.reload, 2, 1, START)

    def limited(self) -> tuple[float, int, float]:
        """Return that probation's limit: share, attempts, seconds."""
        probation = self.probation()
        assert probation is not None and probation.limit is not None and probation.watch_until is not None
        return probation.limit.rate, probation.limit.minimum, probation.watch_until - START


@frozen
class Proof:
    """Two settings in turn, what to look at, and what is to be seen there with each."""

    first: str
    second: str
    look: Callable[[SettingsWorld], Any]
    seen: tuple[Any, Any]


def retained(name: str) -> Callable[[SettingsWorld], Any]:
    """Look at one limit by which the background service trims."""
    return lambda server: getattr(server.trims_by(), name)


SATURATED, RATE = "Saturated, 1 s", "RateExceeded"
ON_FAILURES = 'reload.revert_on_failures = "10%"\n'
PROOFS = {
    "allowed_origins": Proof(
        'allowed_origins = ["https://a.test"]',
        'allowed_origins = ["https://b.test"]',
        lambda server: server.site.origins,
        ({b"https://a.test"}, {b"https://b.test"}),
    ),
    "trusted_proxies": Proof(
        'trusted_proxies = ["10.0.0.0/8"]',
        'trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]',
        lambda server: [str(network) for network in server.site.trusted_proxies],
        (["10.0.0.0/8"], ["10.0.0.0/8", "192.0.2.1/32"]),
    ),
    "admin_hosts": Proof(
        'admin_hosts = ["a.test"]',
        'admin_hosts = ["B.test"]',
        lambda server: server.site.own_hosts.allowed,
        ({"a.test"}, {"b.test"}),
    ),
    "console_url": Proof(
        'console_url = "https://a.test/console"',
        'console_url = "https://B.test/harn/console"',
        lambda server: server.site.own_hosts.allowed,
        ({"a.test"}, {"b.test"}),
    ),
    "max_body_bytes": Proof(
        "max_body_bytes = 5", "max_body_bytes = 6", lambda server: server.site.max_body_bytes, (5, 6)
    ),
    "log_level": Proof('log_level = "warn"', "", lambda server: server.levels[-1], ("warn", "info")),
    "drain.max_items": Proof(
        "drain.max_items = 5", "drain.max_items = 6", lambda server: drain_limits(server.server)[0], (5, 6)
    ),
    "drain.deadline_seconds": Proof(
        "drain.deadline_seconds = 5",
        "drain.deadline_seconds = 6",
        lambda server: drain_limits(server.server)[1],
        (5, 6),
    ),
    "pumps.max_outstanding": Proof(
        "pumps.max_outstanding = 5", "", lambda server: server.dispatcher.max_outstanding, (5, 64)
    ),
    "retention.events": Proof('retention.events = "1h"', "", retained("events"), (3600.0, 7 * A_DAY)),
    "retention.dead": Proof('retention.dead = "1h"', "", retained("dead"), (3600.0, 30 * A_DAY)),
    "retention.max_bytes": Proof("retention.max_bytes = 5", "", retained("max_bytes"), (5, None)),
    "retention.generations": Proof("retention.generations = 5", "", retained("generations"), (5, 20)),
    "reload.drain_timeout": Proof(
        'reload.drain_timeout = "5s"',
        'reload.drain_timeout = "6s"',
        lambda server: (server.server.settings.reload.drain_timeout, server.drains_for()),
        ((5.0, 5.0), (6.0, 6.0)),
    ),
    "reload.timeout": Proof(
        'reload.timeout = "6s"', 'reload.timeout = "7s"', lambda server: server.stage_takes(), (6.0, 7.0)
    ),
    "reload.confirm_within": Proof(
        'reload.confirm_within = "5s"',
        'reload.confirm_within = "6s"',
        lambda server: (found := server.probation()) and (found.confirm_by or 0.0) - START,
        (5.0, 6.0),
    ),
    "reload.revert_on_failures": Proof(
        'reload.revert_on_failures = "10%"',
        'reload.revert_on_failures = "20%"',
        lambda server: server.limited(),
        ((0.1, 20, 120.0), (0.2, 20, 120.0)),
    ),
    "reload.revert_min": Proof(
        ON_FAILURES + "reload.revert_min = 5", ON_FAILURES, lambda server: server.limited()[1], (5, 20)
    ),
    "reload.revert_for": Proof(
        ON_FAILURES + 'reload.revert_for = "5s"', ON_FAILURES, lambda server: server.limited()[2], (5.0, 120.0)
    ),
    "vm.include": Proof(
        'vm.include = ["rules/one.py"]',
        'vm.include = ["rules/*.py"]',
        lambda server: sorted(server.world.serving.inputs.bundle.included),
        (["rules.one"], ["rules.one", "rules.two"]),
    ),
    "admission.max_pending_events": Proof(
        "admission.max_pending_events = 1",
        "admission.max_pending_events = 2",
        lambda server: server.pending(3, 0),
        (["", SATURATED, SATURATED], ["", "", SATURATED]),
    ),
    "admission.max_pending_bytes": Proof(
        "admission.max_pending_bytes = 10",
        "admission.max_pending_bytes = 20",
        lambda server: server.pending(3, 11),
        (["", SATURATED, SATURATED], ["", "", SATURATED]),
    ),
    "admission.max_unverified_bytes": Proof(
        "max_body_bytes = 10\nadmission.max_unverified_bytes = 20",
        "max_body_bytes = 10\nadmission.max_unverified_bytes = 30",
        lambda server: server.site.unverified.bound,
        (20, 30),
    ),
    "admission.max_connections": Proof(
        "admission.max_connections = 20",
        "admission.max_connections = 30",
        lambda server: server.site.connection_limit.most,
        (20, 30),
    ),
    "admission.global_rate": Proof(
        "admission.global_rate = 0.5",
        "admission.global_rate = 0.25",
        lambda server: server.requests(),
        ((1, "Saturated, 2 s"), (1, "Saturated, 4 s")),
    ),
    "admission.rate": Proof(
        "admission.rate = 0.5",
        "",
        lambda server: server.requests(),
        ((1, f"{RATE}, 2 s"), (50, "")),
    ),
    "admission.burst": Proof(
        "admission.rate = 0.5\nadmission.burst = 5",
        "admission.rate = 0.5\nadmission.burst = 6",
        lambda server: server.requests(),
        ((5, f"{RATE}, 2 s"), (6, f"{RATE}, 2 s")),
    ),
}
SMTP = {f"smtp.{key}" for key in ("from", "host", "password_secret", "port", "tls", "username")}
ELSEWHERE = {"allow_empty", "alerts", "reload.allow_split", *SMTP}
"""Proved live in `LiveSettingsTests.test_allow_empty`, in `tests.alerts` and in `tests.servers.test_agreement`."""


class LiveSettingsTests(SynchronousTestCase):
    """A reload applies a setting: each of them, seen in its effect."""

    def server(self, options: ServeOptions = OPTIONS) -> SettingsWorld:
        """Make one."""
        return SettingsWorld(Path(self.mktemp()), options)

    def adopt(self, server: SettingsWorld, settings: str, *triggers: str) -> ReloadReport:
        """Adopt a manifest with these settings."""
        report = self.successResultOf(server.ask(f"[orchestrator]\n{settings}\n", *(triggers or (fake("a"),))))
        self.assertTrue(report.ok, report)
        return report

    def test_every_live_setting_has_a_proof(self) -> None:
        """A new setting is live unless its shape says otherwise, and must be proved here to be so."""
        self.assertEqual(PROOFS.keys() | ELSEWHERE, LIVE_SETTINGS)

    def test_proofs(self) -> None:
        """What is to be seen with each of two settings is seen, and a third reload goes back to the first."""
        for name, proof in PROOFS.items():
            server = self.server()
            self.adopt(server, proof.first)
            self.assertEqual(proof.look(server), proof.seen[0], name)
            report = self.adopt(server, proof.second)
            self.assertEqual(report.requires_restart, (), name)
            self.assertEqual(proof.look(server), proof.seen[1], name)
            self.adopt(server, proof.first)
            self.assertEqual(proof.look(server), proof.seen[0], name)

    def test_allow_empty(self) -> None:
        """Whether a manifest may be empty is decided by that manifest itself."""
        server = self.server()
        self.adopt(server, "allow_empty = true")
        refused = self.successResultOf(server.ask("[orchestrator]\nallow_empty = false\n"))
        self.assertEqual((refused.ok, refused.stage), (False, "validate"))
        self.assertTrue(self.successResultOf(server.ask("[orchestrator]\nallow_empty = true\n")).ok)

    def test_what_may_be_gone_back_to_is_kept(self) -> None:
        """However few generations are kept, the one that an unconfirmed one falls back to is among them."""
        server = self.server()
        world = server.world
        self.adopt(server, "retention.generations = 2")
        kept = 'retention.generations = 2\nreload.confirm_within = "1h"\n'
        for number in range(5):
            self.adopt(server, f"{kept}max_body_bytes = {number + 5}")
        self.assertEqual(server.retention().policy().kept, (1, 6))
        sweeping = RetentionService(world.clock, world.store, server.retention()).sweep()
        Deferred.fromCoroutine(sweeping)
        world.clock.pump([1.0] * 5)
        self.assertEqual([each.number for each in self.successResultOf(world.store.generations.history(9))], [6, 5, 1])
        world.clock.advance(3600.0)
        last = world.coordinator.last
        assert last is not None
        self.assertEqual((last.ok, last.source, last.recalled, last.generation), (True, "revert", 1, 7))
        self.assertEqual(server.site.max_body_bytes, 10_485_760)
        self.assertEqual(server.retention().policy().kept, (7,))

    def test_flags_win(self) -> None:
        """What a flag says no manifest changes, neither the first nor a reload."""
        told = evolve(OPTIONS, pump_max_outstanding=9, drain_max_items=0, drain_deadline=0.0, log_level="error")
        server = self.server(told)
        for number in (3, 4):
            self.adopt(
                server,
                f'log_level = "debug"\npumps.max_outstanding = {number}\n'
                f"drain = {{ max_items = {number}, deadline_seconds = {number} }}",
            )
            self.assertEqual((server.dispatcher.max_outstanding, drain_limits(server.server)), (9, (0, 0.0)))
        self.assertEqual(server.levels, [])

    def test_failed_reload_applies_nothing(self) -> None:
        """Settings are part of the generation: one that is refused changes none."""
        server = self.server()
        self.adopt(server, "max_body_bytes = 5\npumps.max_outstanding = 5")
        failed = self.successResultOf(
            server.ask('[orchestrator]\nmax_body_bytes = 6\nlog_level = "debug"\n', fake("a", handler="none:f"))
        )
        self.assertFalse(failed.ok)
        self.assertEqual((server.site.max_body_bytes, server.dispatcher.max_outstanding), (5, 5))
        self.assertEqual(server.levels, ["info"])

    def test_rates_of_removed_triggers(self) -> None:
        """The rate of a trigger that was removed is remembered for a day, unless it comes back."""
        server = self.server()
        kept: list[set[str]] = []
        self.patch(server.admission, "apply", lambda settings, ids: kept.append(set(ids)))
        self.adopt(server, "", fake("a"), fake("b"), fake("c"))
        self.adopt(server, "", fake("a"))
        self.assertEqual(kept[-1], {"a", "b", "c"})
        self.adopt(server, "", fake("a"), fake("c"))
        server.world.clock.advance(REMEMBERED)
        self.adopt(server, "", fake("c"))
        self.assertEqual(kept[-1], {"a", "c"})

    def test_credentials(self) -> None:
        """The authenticators are those of the credentials of the newest generation."""
        server = self.server()
        credentials = server.server[LiveCredentials]
        self.adopt(server, "")
        before = credentials.authenticator()
        self.assertFalse(credentials.are_configured)
        server.world.environ["HARN_ORCHESTRATOR_API_KEYS"] = "key"
        self.adopt(server, "max_body_bytes = 5")
        self.assertTrue(credentials.are_configured)
        self.assertIsNot(credentials.authenticator(), before)
