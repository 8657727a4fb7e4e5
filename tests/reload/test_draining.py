"""What a reload or a restart leaves to be finished: draining, deadlines, and versions that are brought back."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred, succeed

from harn.errors import HandlerRetryAfter, RouteUnknown
from harn.reload.adopt import MOST_NAMED
from harn.reload.report import ReloadReport
from harn.triggers.binding import DRAINING, TERMINATED
from tests.reload.case import GenerationCase
from tests.reload.fakes import START
from tests.reload.world import HANDLERS, World, fake, handlers_in

FASTER = 'timeout = "5s"'
TEN_SECONDS = '[orchestrator]\nallow_empty = true\nreload.drain_timeout = "10s"\n'


class DrainTests(GenerationCase):
    """Versions with a call that runs, and one that waits behind it."""

    def edit(self, number: int) -> ReloadReport:
        """Edit the handler's code."""
        self.world.write("handlers.py", HANDLERS + f"# {number}\n")
        return self.reloaded()

    def test_deadline(self) -> None:
        """At the deadline what was not begun goes to the newest version; what runs continues."""
        self.world.dispatcher.apply(1)
        self.started(fake("a"), head='[orchestrator]\npumps.max_outstanding = 1\nreload.drain_timeout = "10s"\n')
        self.world.dispatcher.apply(1)
        for key in ("d1", "d2"):
            self.successResultOf(self.world.take("a", key))
        self.edit(1)
        old, new = self.world.registry.draining()[0], self.world.version("a")
        self.world.clock.advance(9.0)
        self.assertEqual((old.in_flight, new.in_flight), (2, 0))
        self.world.clock.advance(1.0)
        self.assertEqual((old.in_flight, new.in_flight, old.state), (1, 1, DRAINING))
        self.world.calls[0].returns()
        self.assertEqual(old.state, TERMINATED)
        self.assertEqual(self.world.calls[0].call.binding, "a@v2")

    def drained(self, trigger_text: str, count: int = 3) -> None:
        """Accept deliveries of ``a``, of which one runs, and replace or remove their version five seconds later."""
        self.world.dispatcher.apply(1)
        for number in range(count):
            self.successResultOf(self.world.take("a", f"d{number}"))
        self.world.clock.advance(5.0)
        self.world.manifest(trigger_text, head=TEN_SECONDS)
        self.assertTrue(self.reloaded().ok)

    def described(self) -> list[tuple[str, int, float, float | None]]:
        """Describe the draining versions: times as seconds from the start."""
        return [
            (each.binding.key, each.generation, each.since - START, each.deadline and each.deadline - START)
            for each in self.world.drains.describe()
        ]

    def moved(self, key: str) -> Deferred[int]:
        """Move on what a draining version has not begun."""
        return self.world.dispatcher.move_on(self.world.drains.find(key))

    def test_describe(self) -> None:
        """Each version with its generation, since when, and its deadline, until that has passed or it was moved."""
        self.started(fake("a"), fake("b"), head=TEN_SECONDS)
        self.assertEqual(self.described(), [])
        self.drained(fake("a", extra=FASTER) + fake("b"))
        self.assertEqual(self.described(), [("a@v1", 1, 5.0, 15.0)])
        self.successResultOf(self.world.take("b"))
        self.world.clock.advance(1.0)
        self.world.manifest(fake("a", extra=FASTER), head=TEN_SECONDS)
        self.reloaded()
        self.assertEqual(self.described(), [("a@v1", 1, 5.0, 15.0), ("b@v1", 2, 6.0, 16.0)])
        self.successResultOf(self.moved("b@v1"))
        self.assertEqual(self.described(), [("a@v1", 1, 5.0, 15.0)])
        self.world.wall.step(3600.0)  # the deadline is as far away as it was
        self.assertEqual(self.described(), [("a@v1", 1, 5.0, 3615.0)])
        self.world.wall.step(-3600.0)
        self.world.clock.advance(9.0)
        self.assertEqual(self.described(), [("a@v1", 1, 5.0, None)])
        self.world.calls[0].returns()
        self.assertEqual(self.described(), [])

    def test_cancel(self) -> None:
        """An operator gives up what a version holds; with its last one the group, and its deadline, are gone."""
        for following in (fake("a", extra=FASTER), ""):
            self.world = World(Path(self.mktemp()))
            self.started(fake("a"), head=TEN_SECONDS)
            self.drained(following)
            self.assertEqual(self.successResultOf(self.world.dispatcher.cancel(self.world.drains.find("a@v1"))), 3)
            self.assertEqual((self.world.retired, self.world.calls, self.described()), (["a@v1"], [], []))
            self.assertEqual((self.world.drains.generations, self.world.clock.getDelayedCalls()), ((), []))

    def test_no_such_version(self) -> None:
        """What does not drain can neither be moved nor cancelled; the answer says what does."""
        self.started(fake("a"), head=TEN_SECONDS)
        error = self.assertRaises(RouteUnknown, self.world.drains.find, "a@v1")
        self.assertEqual(str(error), "no version 'a@v1' drains; nothing drains now")
        self.drained(fake("a", extra=FASTER))
        for key in ("a@v2", "a", "", "a@v1 ", "\ud800", "b@v1"):
            error = self.assertRaises(RouteUnknown, self.world.drains.find, key)
            self.assertEqual(str(error), f"no version {key!r} drains; draining now: a@v1")
        self.assertEqual(len(self.world.calls), 1)

    def test_a_long_list(self) -> None:
        """An error names so many of what drains, and says how many there are besides."""
        names = [f"t{number:02}" for number in range(MOST_NAMED + 2)]
        self.started(*(fake(name) for name in names))
        self.world.dispatcher.apply(0)
        for name in names:
            self.successResultOf(self.world.take(name))
        self.world.manifest()
        self.reloaded()
        error = self.assertRaises(RouteUnknown, self.world.drains.find, "gh@v1")
        self.assertRegex(str(error), r"draining now: t00@v1, t01@v1, .*t19@v1, and 2 more$")


class ReviveTests(GenerationCase):
    """After a restart, what earlier versions accepted."""

    def stored(self, count: int = 1) -> None:
        """Accept deliveries that are not begun."""
        self.world.dispatcher.apply(0)
        for number in range(count):
            self.successResultOf(self.world.take("a", f"d{number}"))

    def recovered(self) -> int:
        """Recover as a start does."""
        return self.successResultOf(Deferred.fromCoroutine(self.world.recovery.automatic(10)))

    def test_on_its_own_code(self) -> None:
        """What was accepted runs on its own version, from the stored bundle, whatever the files say now."""
        self.started(fake("a"))
        self.stored()
        self.world.write("handlers.py", HANDLERS + "# another\n")
        self.restarted()
        self.assertEqual(self.recovered(), 1)
        (running,) = self.world.calls
        self.assertEqual(running.call.binding, "a@v1")
        self.assertNotIn(b"another", handlers_in(running.interpreter))
        running.returns()
        self.assertEqual((self.world.retired, len(self.world.interpreters.alive)), (["a@v1"], 1))
        self.assertEqual(self.world.drains.generations, ())

    def test_unrevivable(self) -> None:
        """What cannot be brought back, for whatever reason, goes to the newest version."""

        def unresolvable() -> None:
            self.world.interpreters.resolutions = [succeed([])]

        for number in range(2):
            self.world = World(Path(self.mktemp()))
            self.started(fake("a"))
            self.stored()
            self.world.write("handlers.py", HANDLERS + "# another\n")
            self.world = self.world.restarted()
            if number:
                unresolvable()  # the import hangs
            else:
                self.patch(self.world.store.generations, "bundle", lambda _: _fired(b"rubbish"))
            self.assertTrue(self.successResultOf(self.world.start()).ok)
            recovering = Deferred.fromCoroutine(self.world.recovery.automatic(10))
            self.world.clock.advance(30.0)
            self.assertEqual(self.successResultOf(recovering), 1)
            self.assertEqual([each.call.binding for each in self.world.calls], ["a@v2"])
            self.world.calls[0].returns()
            self.assertEqual(self.world.version("a").in_flight, 0)

    def test_waiting_retries_of_several_versions(self) -> None:
        """Retries of a trigger that is gone keep its newest version alone."""
        self.started(fake("a"), fake("b"))
        for number in range(2):
            self.successResultOf(self.world.take("a", f"d{number}"))
            self.world.calls[0].raises(HandlerRetryAfter("later", 600.0))
            if not number:
                self.world.write("handlers.py", HANDLERS + "# another\n")
                self.reloaded()
        self.world.manifest(fake("b"))
        self.restarted()
        self.assertEqual(self.recovered(), 2)
        self.assertEqual([binding.key for binding in self.world.registry.draining()], ["a@v2"])

    def test_on_request(self) -> None:
        """With ``recover = "manual"`` nothing runs by itself; a request lists, or runs, all of it, old ids and new."""
        self.started(fake("a"))
        self.stored(3)
        self.restarted()
        self.successResultOf(self.world.take("a", "new"))
        self.world.calls[0].returns()
        on_request = self.world.recovery.on_request
        listed = self.successResultOf(Deferred.fromCoroutine(on_request(0.0, dry_run=True)))
        self.assertEqual((listed.stranded_envelopes, listed.recovered, self.world.calls), (0, 0, []))
        self.world.clock.advance(60.0)
        listed = self.successResultOf(Deferred.fromCoroutine(on_request(30.0, dry_run=True)))
        self.assertEqual((listed.stranded_envelopes, listed.recovered, self.world.calls), (3, 0, []))
        done = self.successResultOf(Deferred.fromCoroutine(on_request(30.0, dry_run=False)))
        self.assertEqual((done.recovered, len(self.world.calls)), (3, 3))
        for running in list(self.world.calls):
            running.returns()
        self.assertEqual(self.world.version("a").in_flight, 0)
        self.assertEqual(self.successResultOf(self.world.store.deliveries.backlog()), [])

    def test_nothing_runs_before_it_is_taken_over(self) -> None:
        """While versions are brought back, no row of theirs runs, ready or due; then each runs once."""
        self.started(fake("a"))
        self.successResultOf(self.world.take("a", "d1"))
        self.world.calls[0].raises(HandlerRetryAfter("later", 5.0))
        self.stored()
        self.world.write("handlers.py", HANDLERS + "# another\n")
        self.restarted()
        self.successResultOf(self.world.take("a", "d2"))
        self.world.calls[0].raises(HandlerRetryAfter("later", 1.0))
        resolving: Deferred[object] = Deferred()
        self.world.interpreters.resolutions = [resolving]
        recovering = Deferred.fromCoroutine(self.world.recovery.on_request(-1.0, dry_run=False))
        self.world.clock.advance(10.0)
        self.assertEqual(self.world.calls, [])
        resolving.callback([])
        self.assertEqual(self.successResultOf(recovering).recovered, 2)
        self.world.clock.advance(1.0)
        self.assertEqual(sorted(each.call.binding for each in self.world.calls), ["a@v1", "a@v2", "a@v2"])
        for running in list(self.world.calls):
            running.returns()
        self.assertEqual((dict(self.world.registry.waiting), self.world.retired), ({}, ["a@v1"]))

    def test_two_requests_at_once(self) -> None:
        """Two requests take over everything once."""
        self.started(fake("a"))
        self.stored(2)
        self.world.write("handlers.py", HANDLERS + "# another\n")
        self.restarted()
        self.world.clock.advance(1.0)
        both = [Deferred.fromCoroutine(self.world.recovery.on_request(0.0, dry_run=False)) for _ in range(2)]
        self.assertEqual([self.successResultOf(each).recovered for each in both], [2, 0])
        for running in list(self.world.calls):
            running.returns()
        self.assertEqual(self.world.retired, ["a@v1"])


def _fired(value: object) -> Deferred[object]:
    done: Deferred[object] = Deferred()
    done.callback(value)
    return done


class RampsTests(GenerationCase):
    def test_many_ramps_of_one_generation(self) -> None:
        """Versions that one generation replaces one after the other drain as that one generation, not as many."""
        names = "abcdef"
        self.started(*map(fake, names))
        self.world.manifest(*(fake(name, extra="timeout = '9s'") for name in names))
        self.successResultOf(self.world.reload(ramp=0.5))
        stable = [ramp.stable for ramp in self.world.registry.ramps.values()]
        for binding in stable:
            binding.lease()
        for name in names:
            self.successResultOf(Deferred.fromCoroutine(self.world.rollouts.ramps.finish(name, "me")))
        self.assertEqual((self.world.drains.generations, {binding.is_closed for binding in stable}), ((2,), {False}))
