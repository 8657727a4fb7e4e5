"""The expectations of a machine that reloads at random: contents, their numbers, and the fates of events."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from harn.model.delivery import (
    BINDING_REMOVED,
    DEAD,
    DONE,
    DRAIN_CANCELLED,
    READY,
    REJECTED,
    RETRY_EXHAUSTED,
    WAITING,
    DeadLetter,
    StoredDelivery,
)
from harn.reload.generation import Candidate
from harn.rollout.model import CONFIRMED, PASSED, REVERTED, STUCK
from harn.triggers.binding import BindingVersion
from harn.vm.interfaces import Call
from tests.reload.fakes import FakeInterpreter
from tests.reload.world import HANDLERS, World, fake, interpreter_of

HEAD = "[orchestrator]\nallow_empty = true\n"
LATER = 'max = 3\nbackoff = "exponential"\nbase = "10s"\njitter = 0'
RETRIES = {"once": "max = 1", "twice": "max = 2", "later": LATER, "pinned": f'{LATER}\nversion = "pinned"'}
MOST = {"once": 1, "twice": 2, "later": 3, "pinned": 3}
ROLLOUTS = {
    "": "",
    "held": "rollout = { percent = 50 }",
    "rising": 'rollout = { percent = 60, step = 30, every = "10s", max_failures = "20%" }',
}
SHARES = {"held": 0.5, "rising": 0.6}


def source_of(number: int) -> str:
    """Write a module of handlers."""
    return f"{HANDLERS}# {number}\n"


def split(key: str) -> tuple[str, int]:
    """Return trigger id and version of ``id@vN``."""
    trigger_id, _, version = key.rpartition("@v")
    return trigger_id, int(version)


@frozen
class Wish:
    """The definition of a trigger in a manifest; ``rollout`` is not part of its version."""

    module: str
    timeout: int
    retry: str = "once"
    rollout: str = field(default="", eq=False)

    def text(self, trigger_id: str) -> str:
        """Write it."""
        lines = (f'timeout = "{self.timeout}s"', ROLLOUTS[self.rollout], "[triggers.retry]", RETRIES[self.retry])
        return fake(trigger_id, handler=f"{self.module}:on_event", extra="\n".join(filter(None, lines)))


@frozen
class Content:
    """What a generation is made of: the manifest's text, and the number of each module that it uses."""

    text: str
    code: Mapping[str, int]
    wishes: Mapping[str, Wish] = field(eq=False)

    @classmethod
    def of(cls, wishes: Mapping[str, Wish], code: Mapping[str, int]) -> Content:
        """Put one together."""
        text = HEAD + "\n" + "\n".join(wishes[trigger_id].text(trigger_id) for trigger_id in sorted(wishes))
        used = {wish.module for wish in wishes.values()}
        return cls(text, {module: code[module] for module in sorted(used)}, dict(wishes))

    def of_trigger(self, trigger_id: str) -> tuple[Wish, int]:
        """Return the value that identifies a version of a trigger."""
        wish = self.wishes[trigger_id]
        return wish, self.code[wish.module]

    def changes(self, following: Content) -> dict[str, tuple[str, ...]]:
        """Return the changes of each trigger when another content is adopted."""
        mine, others = self.wishes.keys(), following.wishes.keys()
        both = sorted(mine & others)
        modified = tuple(each for each in both if self.of_trigger(each) != following.of_trigger(each))
        return {
            "added": tuple(sorted(others - mine)),
            "removed": tuple(sorted(mine - others)),
            "modified": modified,
            "unchanged": tuple(each for each in both if each not in modified),
        }


NOTHING = Content("", {}, {})


@frozen
class Row:
    """What the store holds of one event."""

    stored: StoredDelivery
    dead: DeadLetter | None

    @property
    def is_unfinished(self) -> bool:
        """Whether it is still to be run."""
        return self.stored.state in (READY, WAITING)

    def due_at(self) -> float:
        """Return the time when it is due; at once, where it has none."""
        return self.stored.due_at or 0.0


@define
class Fate:
    """
    One accepted event.

    :ivar version: the one that accepted it, or that it ran on last.
    :ivar failures: attempts that it used up since it was accepted or redriven.
    :ivar state: in which it was seen last.
    :ivar is_carried: a server ended before it did.
    """

    trigger_id: str
    version: int
    failures: int = 0
    has_returned: bool = False
    is_rejected: bool = False
    state: str = "ready"
    is_carried: bool = False

    @property
    def key(self) -> str:
        """The version."""
        return f"{self.trigger_id}@v{self.version}"


@define(eq=False)
class Notebook:
    """
    What was seen of all servers on one folder, and what of it was wrong.

    :ivar disk: what the files say; None for something that no reload may adopt.
    :ivar contents: by generation number. ``given``: by trigger and version, what that number was given to.
    :ivar moved: versions that the current server has moved on; ``ever_moved``: that any has. So with ``cancelled``.
    :ivar redriven: versions whose failures were redriven.
    :ivar aborted: fresh versions of ramps that were aborted, each with the stable one.
    :ivar just_failed: versions that the current server has found bad. ``undone``: by generation, those whose probation
        came to a bad end.
    :ivar gone: triggers that were not there at some time. ``unproven``: generations on probation, or undone.
    :ivar is_narrow: few handlers run at once, so that some deliveries must wait.
    :ivar problems: what broke a promise.
    """

    disk: Content | None = None
    contents: dict[int, Content] = field(factory=dict)
    digests: dict[str, Content] = field(factory=dict)
    given: dict[tuple[str, int], tuple[Wish, int]] = field(factory=dict)
    highest: int = 0
    fates: dict[str, Fate] = field(factory=dict)
    was_live: set[str] = field(factory=set)
    moved: set[str] = field(factory=set)
    ever_moved: set[str] = field(factory=set)
    redriven: set[str] = field(factory=set)
    cancelled: set[str] = field(factory=set)
    ever_cancelled: set[str] = field(factory=set)
    aborted: dict[str, int] = field(factory=dict)
    just_failed: set[str] = field(factory=set)
    undone: dict[int, tuple[BindingVersion, ...]] = field(factory=dict)
    gone: set[str] = field(factory=set)
    unproven: set[int] = field(factory=set)
    is_narrow: bool = False
    problems: list[str] = field(factory=list)

    def hold(self, fact: object, *what: object) -> None:
        """Record a promise that was broken, wherever that is noticed: an exception might be caught there."""
        if not fact:
            self.problems.append(" ".join(map(str, what)))

    # Generations

    def adopted(self, candidate: Candidate, *, is_start: bool) -> None:
        """Record that a generation was adopted, and check that its numbers are new where its content is."""
        generation = candidate.generation
        number, recalled = generation.number, generation.recalled
        content = self.disk if recalled is None else self.contents.get(recalled)
        self.hold(content is not None, "adopted what nobody may", number, recalled)
        if content is None:
            return
        known = self.contents.get(number)
        keeps = is_start and known == content and number == self.highest
        self.hold(number > self.highest or keeps, "generation", number, "after", self.highest)
        self.highest = max(self.highest, number)
        self.contents[number] = content
        self.hold(self.digests.setdefault(generation.digest, content) == content, "one digest, two contents", number)
        self.hold(generation.bindings.keys() == content.wishes.keys(), "other triggers", number, content.wishes)
        for trigger_id, definition in generation.definitions.items():
            wish, code = content.of_trigger(trigger_id)
            spec = definition.spec
            found = (spec.handler, spec.timeout, spec.retry.max)
            self.hold(found == (f"{wish.module}:on_event", wish.timeout, MOST[wish.retry]), "other spec", found, wish)
            source = generation.inputs.bundle.modules[wish.module].source
            self.hold(source == source_of(code).encode(), "other code", trigger_id, number)
            ramp = generation.ramps.get(trigger_id)
            binding = generation.bindings[trigger_id] if ramp is None else ramp.fresh
            self._numbered(trigger_id, binding.version, (wish, code), is_kept=binding.definition is not definition)
        if is_start:
            self.gone.update(trigger_id for trigger_id, _ in self.given if trigger_id not in content.wishes)
            return
        self.hold(not generation.ramps.keys() & {*candidate.plan.added, *candidate.plan.removed}, "ramps", number)
        for trigger_id in generation.ramps.keys() & {*candidate.plan.modified}:
            self.hold(trigger_id in candidate.rollouts, "ramps without a rollout", trigger_id, number)
        if recalled is not None:
            self.hold(not candidate.rollouts, "a rollback ramps", number)

    def _numbered(self, trigger_id: str, version: int, content: tuple[Wish, int], *, is_kept: bool) -> None:
        if is_kept:
            return  # an aborted ramp: what is in force is not what the manifest says
        known = self.given.get((trigger_id, version))
        if known is None:
            highest = max((each for of, each in self.given if of == trigger_id), default=0)
            self.hold(version > highest, trigger_id, version, "is given after", highest)
            self.given[trigger_id, version] = content
        else:
            self.hold(known == content, trigger_id, version, "stands for", known, "and for", content)

    # Events

    def accepted(self, event_id: str, key: str) -> None:
        """Record that an event was accepted under a version."""
        trigger_id, version = split(key)
        fate = self.fates.setdefault(event_id, Fate(trigger_id, version))
        self.hold(fate.trigger_id == trigger_id, "accepted for another", fate, key)

    def called(self, world: World, interpreter: FakeInterpreter, call: Call) -> None:
        """Check that a call begins on its version's own code, and on a version that it may run on."""
        trigger_id, version = split(call.binding)
        wish, number = self.given[trigger_id, version]
        source = interpreter.bundle.modules[wish.module].source
        self.hold(source == source_of(number).encode(), call.binding, "runs other code", source)
        self.hold(call.timeout == wish.timeout, call.binding, "has another time-out", call.timeout)
        fate = self.fates.setdefault(call.event_id, Fate(trigger_id, version))
        running = [each for each in world.calls if each.call.event_id == call.event_id]
        self.hold(not running, "runs twice", call)
        self.hold(row_of(world, call.event_id).is_unfinished, "runs again", fate)
        if call.attempt == 1 and fate.failures:
            self.hold(fate.key in self.redriven, "all attempts again", fate)
            fate.failures = 0
        self.hold(call.attempt == fate.failures + 1, "attempt", call.attempt, fate)
        self.hold(call.binding not in self.moved, "begins on what was moved on", call.binding)
        self.hold(call.binding not in self.cancelled, "begins on what was cancelled", call.binding)
        self._check_version(world, call.event_id, version, call.attempt)
        fate.version, fate.is_carried = version, False

    def _check_version(self, world: World, event_id: str, version: int, attempt: int) -> None:
        fate, registry = self.fates[event_id], world.registry
        trigger_id = fate.trigger_id
        is_back = any(
            split(fresh) >= (trigger_id, fate.version) and split(fresh)[0] == trigger_id and stable == version
            for fresh, stable in self.aborted.items()
        )
        self.hold(version >= fate.version or is_back, fate, "goes back to", version)
        if version != fate.version:
            self.hold(f"{trigger_id}@v{version}" in self.was_live, "was never live", trigger_id, version)
        if attempt == 1:
            has_left = fate.key in self.ever_moved or fate.key in self.ever_cancelled
            self.hold(version == fate.version or has_left, fate, "runs on", version)
        elif not self.is_narrow and not fate.is_carried:
            row = row_of(world, event_id)
            if row.stored.state != WAITING and row.stored.version == version:
                return  # chosen when the last attempt ended: a reload may have come since
            own = registry.get(trigger_id, row.stored.version)
            own = None if own is None or own.is_closed else own
            live, ramp = registry.active.get(trigger_id), registry.ramps.get(trigger_id)
            keeps = live is None or live.spec.retry.version == "pinned" or (ramp is not None and own in ramp.versions)
            expected = own if own is not None and keeps else live or registry.newest(trigger_id)
            as_expected = expected is not None and expected.version == version
            self.hold(as_expected, fate, "is retried on", version, "and not on", expected)

    def ended(self, event_id: str, error: Exception | None, *, is_rejected: bool = False) -> None:
        """Record that the test is about to end a call."""
        fate = self.fates[event_id]
        if error is None:
            fate.has_returned = True
        else:
            fate.failures += 1
            fate.is_rejected = is_rejected

    def look(self, rows: Mapping[str, Row]) -> None:
        """Compare the store with the expected content: every event once, in a state that has a reason."""
        self.hold(rows.keys() == self.fates.keys(), "missing", self.fates.keys() ^ rows.keys())
        for event_id, row in rows.items():
            fate, state = self.fates[event_id], row.stored.state
            if state == DONE:
                self.hold(fate.has_returned, "done by nobody", fate)
            elif state == DEAD:
                self._look_at_dead(fate, row)
            else:
                self.hold(fate.state != DONE, "done and not done", fate)
                self.hold(fate.state != DEAD or row.stored.attempts == 0, "dead and not dead", fate)
                self.hold(state != WAITING or fate.failures, "waits for nothing", fate)
            fate.state = state

    def _look_at_dead(self, fate: Fate, row: Row) -> None:
        reason = "" if row.dead is None else row.dead.reason
        allowed = {
            RETRY_EXHAUSTED: fate.failures >= MOST[self.given[fate.trigger_id, row.stored.version][0].retry],
            REJECTED: fate.is_rejected,
            BINDING_REMOVED: fate.trigger_id in self.gone,
            DRAIN_CANCELLED: any(split(key)[0] == fate.trigger_id for key in self.ever_cancelled),
        }
        self.hold(allowed.get(reason), "dead for no reason:", reason, fate)

    def look_at_versions(self, world: World, rows: Mapping[str, Row], *, is_quiet: bool) -> None:
        """Hold that each version has its own code, and that what a bad one used up is tried again elsewhere."""
        for binding in world.registry:
            wish, number = self.given[binding.id, binding.version]
            source = interpreter_of(binding).value.bundle.modules[wish.module].source
            self.hold(source == source_of(number).encode(), binding, "holds other code", source)
        for row in rows.values() if is_quiet else ():
            key = f"{row.stored.trigger_id}@v{row.stored.version}"
            is_used_up = row.dead is not None and row.dead.reason == RETRY_EXHAUSTED
            is_left = is_used_up and key in self.just_failed and row.stored.trigger_id not in self.gone
            self.hold(not is_left, "not redriven", row.stored)

    def look_at_trials(self, world: World) -> None:
        """Hold that nothing falls back to a generation that was not proved good."""
        while world.notes:
            kind, payload = world.notes.pop(0)
            if kind == "probation_ended" and payload["outcome"] in (CONFIRMED, PASSED, STUCK):
                self.unproven.discard(payload["generation"])
            if kind == "probation_ended" and payload["outcome"] == REVERTED:
                bad = self.undone.pop(payload["generation"])
                self.just_failed.update(each.key for each in bad if world.registry.active.get(each.id) is not each)
        terms = world.rollouts.probations.current
        if terms is not None:
            self.hold(terms.fallback not in self.unproven, "falls back to what was not proved", terms)
            is_kept = terms.fallback in served(world)
            if is_kept and self.contents[terms.fallback] != self.contents[terms.generation]:
                self.unproven.add(terms.generation)  # else it stays, whatever happens to it

    # Servers

    def restarted(self, rows: Mapping[str, Row]) -> None:
        """Record that a server has ended: work in memory that it had not written is lost, and handled once more."""
        self.moved.clear()
        self.just_failed.clear()
        self.undone.clear()
        self.cancelled.clear()
        for event_id, row in rows.items():
            fate = self.fates[event_id]
            if row.is_unfinished:
                # Deliveries that were moved only in memory go back to the version that the store has.
                fate.version, fate.failures = row.stored.version, row.stored.attempts
                fate.has_returned, fate.is_carried = False, True


def served(world: World) -> list[int]:
    """Return the numbers of the generations that have served, the newest first."""
    adopted = "SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC"
    return [number for (number,) in world.store.query(adopted)]


def row_of(world: World, event_id: str) -> Row:
    """Return the stored row of an event."""
    return rows_of(world)[event_id]


def rows_of(world: World) -> dict[str, Row]:
    """Return the stored row of each event, also while the store pretends to be away."""
    rows: dict[str, Row] = {}
    letters = world.store.query("SELECT id, reason, error_class, error FROM deliveries WHERE state = 3")
    dead = {row[0]: DeadLetter(reason=row[1], error_class=row[2], error=row[3]) for row in letters}
    for stored in world.store.rows():
        row = Row(stored, dead.get(stored.delivery_id))
        assert row.stored.event_id not in rows, row
        rows[row.stored.event_id] = row
    return rows
