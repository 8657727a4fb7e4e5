"""Schedules over reloads, restarts, upgrades, steps of the clock and an unavailable event log: each tick once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from harn.clocks import rfc3339
from harn.errors import RouteUnknown
from harn.model.event import TriggerEvent, decode_envelope
from harn.operations.model import Caller, Role
from harn.schedules import feature
from harn.schedules.operations import ListSchedule, TimedTriggers, list_schedule
from harn.schedules.polls import Polls
from harn.schedules.service import KEPT, PREFIX, Schedules
from harn.testing.clocks import START
from tests.reload.world import World

FIRST = START - START % 60 + 60
"""The first full minute of a world's time (seconds, Unix)."""


def cron(trigger_id: str = "t", schedule: str = "* * * * *", **more: Any) -> str:
    """Write a trigger with a schedule."""
    keys = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    return (
        f'[[triggers]]\nid = "{trigger_id}"\nkind = "cron"\nprovider = "cron"\nschedule = "{schedule}"\n'
        f'handler = "handlers:on_event"\n{keys}'
    )


class SchedulesCase(SynchronousTestCase):
    """A world with schedules."""

    def world(self, *triggers: str, before: World | None = None) -> World:
        """Start a server; after ``before`` on its folder and store, at the time at which that ended."""
        return self.serve(self.prepare(*triggers, before=before))

    def prepare(self, *triggers: str, before: World | None = None, takes_over: bool = False) -> World:
        """Make a server up to its first generation."""
        world = World(Path(self.mktemp())) if before is None else before.restarted()
        feature.install(world.server, takes_over=takes_over)
        world.manifest(*triggers)
        self.assertTrue(self.successResultOf(world.start()).ok)
        return world

    def serve(self, world: World) -> World:
        """Begin to serve."""
        world.server.background.startService()
        return world

    def stop(self, world: World) -> None:
        """End the schedules of a server."""
        self.successResultOf(world.server.background.stopService())

    def pass_by(self, world: World, seconds: float, step: float = 10.0) -> None:
        """Move the clock on in steps."""
        for _ in range(int(seconds / step)):
            world.clock.advance(step)

    def ticks(self, world: World, trigger_id: str = "t") -> list[float]:
        """Return the ticks that were accepted, in minutes since `FIRST`, by their dedupe keys."""
        keys = [decode_envelope(row.envelope).dedupe_key for row in world.store.rows() if row.trigger_id == trigger_id]
        return [(int(key.rpartition(":")[2]) - FIRST) / 60 for key in keys]


class FiringTests(SchedulesCase):
    """Ticks while a server runs."""

    def test_tick(self) -> None:
        """A tick is an event at its time, which says when that was, and is claimed by its time."""
        world = self.world(cron(timezone="Europe/Berlin"))
        self.pass_by(world, 70)
        (row,) = world.store.rows()
        event = TriggerEvent(decode_envelope(row.envelope), row.body)
        self.assertEqual((event.kind, event.provider, event.occurred_at), ("tick", "cron", rfc3339(FIRST)))
        self.assertEqual(event.dedupe_key, f"cron:t:{int(FIRST)}")
        self.assertEqual(event.signature_status, {"state": "unsigned"})
        payload = event.provider_payload
        self.assertEqual((payload["cron_id"], payload["schedule"]), ("t", "* * * * *"))
        self.assertEqual(payload["tick_at"], rfc3339(FIRST))
        self.assertEqual(payload["raw"], {"catchup": False, "timezone": "Europe/Berlin"})
        self.assertEqual(len(world.calls), 1)

    def test_every_tick(self) -> None:
        """Each minute has one tick, also of a schedule by seconds and of one with a jitter."""
        world = self.world(cron(), cron("s", "*/20 * * * * *"), cron("j", jitter="50s"))
        self.pass_by(world, 300, step=1.0)
        self.assertEqual(self.ticks(world), [0.0, 1.0, 2.0, 3.0, 4.0])
        self.assertEqual(len(self.ticks(world, "s")), 15)
        self.assertEqual(self.ticks(world, "j")[:4], [0.0, 1.0, 2.0, 3.0])

    def test_stall(self) -> None:
        """A server that stood still for less than a minute fires each tick late; for longer it has missed them."""
        world = self.world(cron("s", "*/20 * * * * *"))
        world.clock.advance(FIRST - START - 1)
        world.wall.step(45)
        self.pass_by(world, 60, step=1.0)
        before = self.ticks(world, "s")
        self.assertEqual(before, sorted(set(before)))
        self.assertEqual([each for each in before if each >= 0][:3], [0.0, 1 / 3, 2 / 3])
        world.wall.step(3600)
        self.pass_by(world, 61, step=1.0)
        after = self.ticks(world, "s")[len(before) :]
        self.assertGreater(after[0] - before[-1], 59)

    def test_set_back(self) -> None:
        """A tick that has fired does not fire again when the clock is set back; a clock ahead by days is forgiven."""
        world = self.world(cron())
        self.pass_by(world, 300)
        count = len(self.ticks(world))
        world.wall.step(-180)
        self.pass_by(world, 170)
        self.assertEqual(len(self.ticks(world)), count)
        self.pass_by(world, 130)
        self.assertEqual(len(self.ticks(world)), count + 2)
        self.assertEqual(len(set(self.ticks(world))), count + 2)
        world.wall.step(-30 * 86400)
        self.pass_by(world, 180)
        self.assertGreater(len(self.ticks(world)), count + 3)

    def test_ahead_and_back(self) -> None:
        """What was passed over while the clock was an hour ahead fires at its time, once, as soon as it is right."""
        world = self.world(cron())
        self.pass_by(world, 70)
        world.wall.step(3600)
        self.pass_by(world, 60)
        fired = self.ticks(world)
        self.assertEqual(len(fired), 2)
        world.wall.step(-3600)
        self.pass_by(world, 600)
        self.assertEqual(self.ticks(world), fired)  # one of an hour later has fired: nothing does before it again
        world = self.world(cron(schedule="*/2 * * * *"))
        world.wall.step(3600)
        self.pass_by(world, 20)
        world.wall.step(-3600)
        self.pass_by(world, 500)
        found = self.ticks(world)
        self.assertEqual(found, sorted(set(found)))
        self.assertGreaterEqual(len(found), 4)

    def test_started_ahead(self) -> None:
        """A server that started while the clock was an hour ahead fires at once when that is right."""
        world = self.prepare(cron())
        world.wall.step(3600)
        self.serve(world)
        self.pass_by(world, 20)
        world.wall.step(-3600)
        self.pass_by(world, 300)
        self.assertGreaterEqual(len(self.ticks(world)), 4)

    def test_one_turn(self) -> None:
        """One turn of the reactor fires a limited number of ticks, however many triggers have missed how many."""
        triggers = [cron(f"t{number}", catchup_mode="all") for number in range(20)]
        world = self.world(*triggers)
        self.stop(world)
        world.clock.advance(60 * 90)
        again = self.prepare(*triggers, before=world)
        counts: list[int] = []

        def turn() -> None:
            counts.append(len(again.store.rows()))
            if len(counts) < 30:
                again.clock.callLater(0, turn)

        again.clock.callLater(0, turn)
        self.serve(again)
        again.clock.advance(0.0)
        self.assertEqual(counts[-1], 20 * 90)
        self.assertLessEqual(max(after - before for before, after in pairwise(counts)), 200)

    def test_store_away(self) -> None:
        """A tick that cannot be kept is fired once the event log is there again."""
        world = self.world(cron())
        world.clock.advance(FIRST - START - 1)
        world.store.fail_writes = True
        self.pass_by(world, 20)
        self.assertEqual(self.ticks(world), [])
        world.store.fail_writes = False
        self.pass_by(world, 10)
        self.assertEqual(self.ticks(world), [0.0])

    def test_many_at_once(self) -> None:
        """Hundreds that are due at one moment are fired, some in each turn of the reactor."""
        world = self.world(*(cron(f"t{number}") for number in range(250)))
        self.pass_by(world, 70)
        self.assertEqual(len(world.store.rows()), 250)


class ReloadTests(SchedulesCase):
    """Schedules follow reloads."""

    def test_unchanged(self) -> None:
        """A reload of code or another trigger leaves a schedule alone; the next tick runs on the new version."""
        world = self.world(cron())
        self.pass_by(world, 70)
        world.write("handlers.py", "def on_event(event):\n    return 2\n")
        self.successResultOf(world.reload())
        self.pass_by(world, 60)
        self.assertEqual(self.ticks(world), [0.0, 1.0])
        self.assertEqual([row.version for row in world.store.rows()], [1, 2])

    def test_changed_added_removed(self) -> None:
        """Another schedule counts from the reload on, as does a new one; a removed one no longer fires."""
        world = self.world(cron(), cron("gone"))
        self.pass_by(world, 70)
        world.manifest(cron(schedule="30 * * * * *"), cron("new"))
        self.successResultOf(world.reload())
        self.pass_by(world, 60)
        self.assertEqual(self.ticks(world)[1:], [1.5])
        self.assertEqual((self.ticks(world, "gone"), self.ticks(world, "new")), ([0.0], [1.0]))

    def test_removed_and_back(self) -> None:
        """A trigger that comes back within a day continues; one that comes back later begins again, from the start."""
        for away, count in ((240.0, 4), (KEPT + 60.0, 0)):
            for restarts in (False, True):
                world = self.world(cron(catchup_mode="all"), cron("o", "0 0 1 1 *"))
                self.pass_by(world, 70)
                world.manifest(cron("o", "0 0 1 1 *"))
                self.successResultOf(world.reload())
                if restarts:
                    self.stop(world)
                    world = self.world(cron("o", "0 0 1 1 *"), before=world)
                for _ in range(10):
                    world.clock.advance(away / 10)
                self.assertEqual(self.ticks(world), [0.0])
                world.manifest(cron(catchup_mode="all"), cron("o", "0 0 1 1 *"))
                self.successResultOf(world.reload())
                self.pass_by(world, 10, step=1.0)
                self.assertEqual(self.ticks(world), [float(number) for number in range(count + 1)])
                self.stop(world)
                again = self.world(cron(catchup_mode="all"), cron("o", "0 0 1 1 *"), before=world)
                self.pass_by(again, 10, step=1.0)
                self.assertEqual(len(self.ticks(again)), count + 1)

    def test_removed_while_down(self) -> None:
        """What was fired is kept for a day, too, where a trigger was not there as a server started."""
        world = self.world(cron(catchup_mode="all"), cron("o"))
        self.pass_by(world, 70)
        self.stop(world)
        between = self.world(cron("o"), before=world)
        between.clock.advance(120)
        self.stop(between)
        back = self.world(cron(catchup_mode="all"), cron("o"), before=between)
        self.pass_by(back, 10, step=1.0)
        self.assertEqual(self.ticks(back), [0.0, 1.0, 2.0])
        self.stop(back)
        between = self.world(cron("o"), before=back)
        between.clock.advance(KEPT + 60)
        self.stop(between)
        self.world(cron("o"), before=between)
        self.assertIsNone(self.successResultOf(between.store.checkpoints.get(PREFIX + "t")))

    def test_jitter_changed(self) -> None:
        """A tick that its jitter delays still is fired when a reload changes the jitter, or the schedule."""
        hourly = f"{int(FIRST) % 3600 // 60} * * * *"
        for change in ({}, {"jitter": "9m"}, {"schedule": "59 * * * *"}, {"timezone": "Asia/Kolkata"}):
            world = self.world(cron(schedule=hourly, jitter="10m"))
            self.assertGreater(world.server[Schedules].entries["t"].delay, 120)
            self.pass_by(world, FIRST - START + 30)
            self.assertEqual(self.ticks(world), [])
            world.manifest(cron(**{"schedule": hourly, **change}))
            self.assertTrue(self.successResultOf(world.reload()).ok)
            self.pass_by(world, 600)
            self.assertEqual(self.ticks(world)[0], 0.0, change)
            self.assertEqual(self.ticks(world).count(0.0), 1)

    def test_changed_amid_a_catch_up(self) -> None:
        """Hundreds of ticks that were missed are all fired under the schedule that they belong to, then the new one."""
        world = self.world(cron(catchup_mode="all"))
        self.pass_by(world, 70)
        self.stop(world)
        world.clock.advance(350 * 60)
        again = self.world(cron(catchup_mode="all"), before=world)
        before: list[int] = []

        def edit() -> None:
            before.append(len(self.ticks(again)))
            for schedule in ("20 * * * * *", "30 * * * * *"):
                again.manifest(cron(schedule=schedule, catchup_mode="all"))
                self.assertTrue(self.successResultOf(again.reload()).ok)

        again.clock.callLater(0.0, edit)
        self.pass_by(again, 60, step=1.0)
        self.assertEqual(before, [101])
        *old, new = self.ticks(again)
        self.assertGreater(len(old), 350)
        self.assertEqual((old, new % 1), ([float(number) for number in range(len(old))], 0.5))

    def test_ramp(self) -> None:
        """Another schedule never takes only a share of the deliveries: it is in force at once, without a ramp."""
        world = self.world(cron())
        world.manifest(cron(schedule="30 * * * * *") + "rollout = { percent = 50 }\n")
        report = self.successResultOf(world.reload())
        self.assertIn("its settings changed", report.warnings[0])
        self.assertEqual(world.registry.ramps, {})

    def test_failed_reload(self) -> None:
        """A reload that fails changes nothing."""
        world = self.world(cron())
        world.manifest(cron(schedule="61 * * * *"))
        self.successResultOf(world.reload())
        self.pass_by(world, 70)
        self.assertEqual(self.ticks(world), [0.0])


class RestartTests(SchedulesCase):
    """Schedules over restarts."""

    def missed(self, mode: str, **more: Any) -> list[float]:
        """Return the ticks of a server that fires one, stands still for five minutes, and runs for one more."""
        world = self.world(cron(catchup_mode=mode))
        self.pass_by(world, 70)
        self.stop(world)
        world.clock.advance(300)
        again = self.world(cron(catchup_mode=mode, **more), before=world)
        self.pass_by(again, 60)
        return self.ticks(again)

    def test_catch_up(self) -> None:
        """Of the missed ticks none, the last or all are fired late; a tick that has fired does not fire again."""
        self.assertEqual(self.missed("skip"), [0.0, 6.0])
        self.assertEqual(self.missed("latest"), [0.0, 5.0, 6.0])
        self.assertEqual(self.missed("all"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def test_another_schedule(self) -> None:
        """A schedule that was changed meanwhile has missed nothing."""
        self.assertEqual(self.missed("all", timezone="Europe/Berlin"), [0.0, 6.0])

    def test_jitter(self) -> None:
        """A tick that its jitter delays to after a restart is fired then."""
        hourly = f"{int(FIRST) % 3600 // 60} * * * *"
        world = self.world(cron(schedule=hourly, jitter="10m"))
        self.pass_by(world, FIRST - START + 30)
        self.stop(world)
        again = self.world(cron(schedule=hourly, jitter="10m"), before=world)
        self.pass_by(again, 600)
        self.assertEqual(self.ticks(again), [0.0])
        again.clock.advance(3600 - 500)
        self.stop(again)
        third = self.world(cron(schedule=hourly, jitter="10m"), before=again)
        self.pass_by(third, 600)
        self.assertEqual(self.ticks(third), [0.0, 60.0])

    def test_never_fired(self) -> None:
        """A schedule that ended before its first tick has missed it, where it says that it counts."""
        world = self.world(cron(catchup_mode="all"))
        self.stop(world)
        world.clock.advance(120)
        again = self.world(cron(catchup_mode="all"), before=world)
        self.pass_by(again, 10)
        self.assertEqual(self.ticks(again), [0.0, 1.0])
        late = [
            TriggerEvent(decode_envelope(row.envelope), row.body).provider_payload["raw"]["catchup"]
            for row in again.store.rows()
        ]
        self.assertEqual(late, [True, True])

    def test_many_missed(self) -> None:
        """Hundreds of missed ticks are fired late, in parts, in order."""
        world = self.world(cron(catchup_mode="all"))
        self.stop(world)
        world.clock.advance(60 * 250)
        again = self.world(cron(catchup_mode="all"), before=world)
        self.pass_by(again, 10, step=1.0)
        found = self.ticks(again)
        self.assertEqual(found[:250], [float(number) for number in range(250)])

    def test_upgrade(self) -> None:
        """A program that takes over fires what was due since it started, once, whoever fires it."""
        for takes_over in (True, False):
            world = self.world(cron())
            world.clock.advance(FIRST - START - 10)
            self.stop(world)
            new = self.prepare(cron(), before=world, takes_over=takes_over)
            new.clock.advance(20)  # in which the one takes over from the other
            self.serve(new)
            self.pass_by(new, 5, step=1.0)
            self.assertEqual(self.ticks(new), [0.0] if takes_over else [])


class ListTests(SchedulesCase):
    """What is due next, for people."""

    def listed(self, world: World, **wanted: Any) -> Any:
        """Return the answer of the operation."""
        caller = Caller(actor="test", role=Role.READ)
        answering: Any = list_schedule.run(
            TimedTriggers(world.server[Schedules], world.server[Polls]), caller, ListSchedule(**wanted)
        )
        return self.successResultOf(ensureDeferred(answering))

    def test_order(self) -> None:
        """The firings of all triggers come in order, in their zones, with the last that was fired."""
        world = self.world(cron(), cron("h", "0 9 * * *", timezone="America/New_York"))
        self.pass_by(world, 70)
        found = self.listed(world, limit=2)
        self.assertEqual([each.trigger_id for each in found.firings], ["t", "t"])
        self.assertTrue(found.more)
        self.assertEqual(found.firings[0].at, rfc3339(FIRST + 60))
        self.assertEqual(found.firings[0].last_fired_at, rfc3339(FIRST))
        (only,) = self.listed(world, limit=1, trigger="h").firings
        self.assertIn("T09:00:00-05:00", only.local_at)
        self.assertEqual((only.timezone, only.last_fired_at), ("America/New_York", None))

    def test_unknown(self) -> None:
        """A trigger without a schedule is an error that names those with one."""
        world = self.world(cron())
        answering: Any = list_schedule.run(
            TimedTriggers(world.server[Schedules], world.server[Polls]),
            Caller(actor="test", role=Role.READ),
            ListSchedule(trigger="x"),
        )
        failure = self.failureResultOf(ensureDeferred(answering), RouteUnknown)
        self.assertIn("triggers with one: t", str(failure.value))

    def test_metrics(self) -> None:
        """The gauge shows when each trigger fires next."""
        world = self.world(cron())
        read = world.metrics.gauges["harn_schedule_next_timestamp_seconds"].read
        self.pass_by(world, 10)
        self.assertEqual(read(), {("t",): FIRST})
