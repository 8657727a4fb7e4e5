"""Any sequence of units comes to the same in the store and in a model of it."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import structs
from msgspec.structs import replace
from twisted.internet.defer import DeferredList
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import HarnError
from harn.model.delivery import DEAD, DONE, READY, WAITING, Acceptance, Claim, NewDelivery, Settlement
from harn.store.event_log import ATTEMPTS, DEAD_LETTERS, INBOX, OUTBOX
from harn.store.retention import RetentionPolicy
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import (
    NOW,
    StoreClock,
    accept_of,
    attempt_of,
    binding_of,
    dead_letter,
    dedupe,
    generation_of,
    new_delivery,
    settlement_of,
)
from tests.store.model.store import ModelStore

KEYS = st.sampled_from("abcd")
EVENTS = st.sampled_from(["e1", "e2", "e3"])
TRIGGERS = st.sampled_from(["gh", "other"])
VERSIONS = st.integers(1, 3)
IDS = st.integers(1, 12)
WAITS = st.integers(0, 30)
POLICY = RetentionPolicy(events=15.0, dead=40.0)
NUMBERS = st.integers(1, 6)
NAMES = st.sampled_from(["probation", "ramp"])
JSON = st.sampled_from([None, False, "é", [1, {"a": None}]])
DIED = dead_letter("given up")


@st.composite
def deliveries(draw: st.DrawFn) -> NewDelivery:
    expires_at = NOW + draw(WAITS)
    claim = draw(st.none() | st.builds(dedupe, KEYS, st.just(expires_at)))
    dead = draw(st.none() | st.none() | st.just(dead_letter("no")))
    return new_delivery(
        draw(EVENTS), trigger_id=draw(TRIGGERS), version=draw(VERSIONS), claim=claim, dead=dead, received_at=NOW
    )


@st.composite
def acceptances(draw: st.DrawFn) -> Acceptance:
    guard = draw(
        st.none() | st.none() | st.builds(Claim, scope=st.just("admin"), key=KEYS, expires_at=st.just(NOW + 9))
    )
    return accept_of(*draw(st.lists(deliveries(), max_size=3)), guard=guard)


@st.composite
def settlements(draw: st.DrawFn) -> Settlement:
    state = draw(st.sampled_from([READY, WAITING, DONE, DEAD]))
    attempts = draw(st.integers(0, 3))
    return settlement_of(
        draw(IDS),
        state,
        version=draw(VERSIONS),
        attempts=attempts,
        passed=draw(st.booleans()),
        due_at=NOW + draw(WAITS) if state == WAITING else None,
        attempt=draw(st.none() | st.just(attempt_of(attempts, "success" if state == DONE else "failed"))),
        result=b"[1]" if state == DONE else None,
        dead=dead_letter("no") if state == DEAD else None,
    )


UNITS = st.one_of(
    st.tuples(st.just("accept"), acceptances()),
    st.tuples(st.just("settle"), settlements()),
    st.tuples(st.just("claim"), st.just("admin"), KEYS, WAITS.map(lambda wait: NOW + wait)),
    st.tuples(st.just("append"), st.sampled_from(["t1", "t2"]), st.just("kind"), st.just({"a": 1})),
    st.tuples(st.just("skip"), IDS, st.just("cancelled")),
    st.tuples(st.just("due"), WAITS.map(lambda wait: NOW + wait), st.integers(1, 3)),
    st.tuples(
        st.just("dead_letter"),
        TRIGGERS,
        st.none() | VERSIONS,
        st.just(DIED),
        st.sets(IDS, max_size=3),
        st.fixed_dictionaries({"waiting": st.booleans(), "tried": st.booleans()}),
    ),
    st.tuples(st.just("redrive"), TRIGGERS, VERSIONS, VERSIONS, WAITS.map(lambda wait: NOW + wait - 10)),
    st.tuples(st.just("put"), NAMES, JSON),
)


def called(of: Any, name: str, values: Sequence[Any]) -> Any:
    """Call a method; values in a dict are passed by name."""
    named = {
        key: value for each in values if isinstance(each, dict) and name == "dead_letter" for key, value in each.items()
    }
    return getattr(of, name)(*(each for each in values if not named or not isinstance(each, dict)), **named)


class StoreAgrees(RuleBasedStateMachine):
    """Drives a store on SQLite and the model with the same units, a turn's at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(dir=os.getcwd())
        self.clock = StoreClock()
        self.model = ModelStore(self.clock)

    @initialize()
    def begin(self) -> None:
        self.generation = 0
        self.crashed: list[SQLiteStore] = []
        self.open()

    def open(self) -> None:
        path = os.path.join(self.directory, "events.sqlite")
        self.sqlite = SQLiteStore.at(path, self.clock, synchronous="OFF")
        self.both("open")

    def both(self, name: str, *values: Any) -> None:
        """Call both; check that their answers, or the classes of their failures, are the same."""
        self.all_of([(name, *values)])

    def all_of(self, units: Sequence[Any]) -> None:
        """Call the store for all units in one turn, and the model for one after the other."""
        asked = [called(self.idea(name), name, values) for name, *values in units]
        results = self.clock.result_of(DeferredList(asked, consumeErrors=True))
        answers = [result if succeeded else result.type for succeeded, result in results]
        expected = [self.expected(*unit) for unit in units]
        assert answers == expected, (units, answers, expected)

    def idea(self, name: str) -> Any:
        """Return the part of the store that has the method, or the store itself."""
        return next((idea for idea in self.ideas() if hasattr(idea, name)), self.sqlite)

    def ideas(self) -> tuple[Any, ...]:
        store = self.sqlite
        return store.inbox, store.deliveries, store.recovery, store.event_log, store.generations, store.checkpoints

    def expected(self, name: str, *values: Any) -> Any:
        """Return the model's answer, or the class of its error."""
        try:
            return called(self.model, name, values)
        except HarnError as error:
            return type(error)

    @rule(units=st.lists(UNITS, min_size=1, max_size=6))
    def turn(self, units: Sequence[Any]) -> None:
        units = [self.possible(*unit) for unit in units]
        if any(name == "settle" and values[0].state == DEAD for name, *values in units):
            # The order in which the dead of one commit are numbered is not promised.
            units = [unit for unit in units if unit[0] != "accept"]
        self.all_of(units)

    def possible(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Return the call; one on a delivery that is not accepted yet gets an id that does not exist."""
        if name == "settle" and values[0].delivery_id > self.model.latest(INBOX):
            return (name, structs.replace(values[0], delivery_id=values[0].delivery_id + 1_000_000))
        return (name, *values)

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(
        limit=st.integers(1, 3),
        before=st.none() | WAITS.map(lambda wait: NOW + wait - 10),
        leaving=st.none() | st.integers(1, 3),
    )
    def restart(self, limit: int, before: float | None, leaving: int | None) -> None:
        self.both("close")
        self.open()
        self.both("unfinished", NOW + 1, 5, leaving)
        self.both("recover", NOW, limit, before, leaving)

    @rule(running=st.sets(IDS, max_size=3), ended=st.sets(IDS, max_size=2), limit=st.integers(1, 3))
    def crash(self, running: set[int], ended: set[int], limit: int) -> None:
        for delivery_id in running:
            self.both("begins", delivery_id)
        for delivery_id in ended:
            self.model.ended(delivery_id)
            self.sqlite.deliveries.ended(delivery_id)
        self.both("begins", 1_000_000)  # what was noted before is in the file then
        self.crashed.append(self.sqlite)
        self.open()
        self.both("recover", NOW, limit)

    @rule(
        limit=st.integers(1, 3),
        generations=st.integers(0, 2),
        kept=st.sets(NUMBERS, max_size=2).map(tuple),
        versions=st.sets(st.tuples(TRIGGERS, VERSIONS), max_size=2).map(tuple),
    )
    def trim(self, limit: int, generations: int, kept: tuple[int, ...], versions: tuple[tuple[str, int], ...]) -> None:
        now = self.clock.seconds()
        policy = replace(POLICY, generations=generations, kept=kept, versions=versions)
        self.both("trim", policy, now, limit)

    @rule(version=VERSIONS, skip=st.booleans(), manifest=st.none() | st.just(b"text"), digest=st.sampled_from("mn"))
    def reserve(self, version: int, skip: bool, manifest: bytes | None, digest: str) -> None:
        number = self.generation + 1 + skip
        generation = generation_of(
            number,
            binding_of(version, number, bundle_id=f"b{version}"),
            bundle_id=f"b{version}",
            manifest_digest=digest,
            recalled=number - 2,
            summary={"added": [number]},
        )
        self.both("reserve", generation, b"bundle" if version < 3 else None, manifest)

    @precondition(lambda self: self.generation < 100)
    @rule(name=NAMES, value=JSON)
    def adopt(self, name: str, value: Any) -> None:
        self.both("adopted", self.generation + 1, NOW + 1, {name: value})
        known = self.model.last()
        if known is not None and known.number == self.generation + 1:
            self.generation = known.number

    @invariant()
    def same_answers(self) -> None:
        if not hasattr(self, "sqlite"):
            return
        asked: tuple[tuple[Any, ...], ...] = (
            ("ready", "gh", 1, (), 5, 20),
            ("ready", "gh", 2, (1, 3), 100, 1 << 20),
            ("ready", "other", 1, (2, 5), 2, 1 << 20),
            ("next_due", NOW + 5),
            ("backlog",),
            ("unfinished", NOW + 1, 5),
            ("count_unfinished", NOW + 1),
            ("states", (1, 2, 3, 99)),
            ("oldest", [(trigger, version) for trigger in ("gh", "other") for version in (1, 2)]),
            ("recent", ("gh", "other"), 2, 5),
            ("recent", ("other",), 9, 100),
            ("topics",),
            ("last",),
            ("history", 3),
            ("latest_bindings",),
            *(("bindings_at", number) for number in range(1, 5)),
            ("bindings", [("gh", version) for version in range(4)]),
            *(("bundle", f"b{version}") for version in (1, 2)),
            *(("manifest", digest) for digest in "mn"),
            *(("generation", number) for number in range(1, 5)),
            *(("get", name) for name in ("probation", "ramp")),
            *(("find", event) for event in ("e1", "e2", "e3")),
            *(("read", topic, 1, 50) for topic in (INBOX, OUTBOX, ATTEMPTS, DEAD_LETTERS, "t1", "t2")),
            *(("latest", topic) for topic in (INBOX, OUTBOX, ATTEMPTS, DEAD_LETTERS, "t1")),
        )
        for name, *values in asked:
            self.both(name, *values)

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.both("close")
            for store in self.crashed:
                self.clock.result_of(store.close())
        shutil.rmtree(self.directory)


class EquivalenceTests(SynchronousTestCase):
    def test_store_agrees_with_the_model(self) -> None:
        """After any turns, restarts, crashes and trims, the store and the model answer everything alike."""
        run_state_machine_as_test(
            StoreAgrees,
            settings=settings(
                max_examples=int(os.environ.get("HARN_EXAMPLES", "30")),
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
