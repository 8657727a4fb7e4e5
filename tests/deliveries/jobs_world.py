"""Jobs of operators on a dispatcher among real parts, over a store that outlives the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from harn.deliveries.bulk import Bulk
from harn.deliveries.change_operations import ChangeMany, ChangeOne, ChangeService
from harn.deliveries.changing import Canceller, Changer, Replayer
from harn.deliveries.elsewhere import Elsewhere
from harn.deliveries.job_runner import JobRunner
from harn.deliveries.selection import DeliveryReader
from harn.errors import HandlerRejected, HarnError
from harn.operations.model import Operation
from harn.operations.parameters import Rate
from harn.server import RecordWriter
from harn.store.jobs import Job
from harn.testing.clocks import NoThreads
from harn.testing.stores.pumped import PumpedStore
from tests.dispatch.world import World, happened, one_trigger
from tests.operations.asking import asked

T = TypeVar("T")


class JobsWorld:
    """
    A server with the changing operations, without the rest.

    :param store: that of an earlier server, for the next one.
    """

    def __init__(self, store: PumpedStore | None = None, clock: Clock | None = None, **limits: int) -> None:
        world = self.world = World(store, clock, **{"max_outstanding": 1000, **limits})
        self.clock, self.store = world.clock, world.store
        jobs = self.store.jobs
        self.reader = DeliveryReader(
            clock=self.clock,
            wall=world.wall,
            lists=self.store.lists,
            gates=world.dispatcher.gates,
            threads=NoThreads(),
        )
        replayer = Replayer(
            wall=world.wall,
            store=jobs,
            registry=world.registry,
            dispatcher=world.dispatcher,
            lifecycle=world.lifecycle,
        )
        self.elsewhere = Elsewhere(self.clock, world.wall, self.store, world.dispatcher)
        canceller = Canceller(
            wall=world.wall, store=jobs, reader=self.reader, dispatcher=world.dispatcher, elsewhere=self.elsewhere
        )
        self.changer = Changer(
            wall=world.wall,
            store=jobs,
            reader=self.reader,
            replayer=replayer,
            canceller=canceller,
            lifecycle=world.lifecycle,
        )
        records = RecordWriter(self.clock, self.store.event_log)
        self.runner = JobRunner(self.clock, world.wall, jobs, self.reader, self.changer, records)
        self.bulk = Bulk(
            wall=world.wall,
            store=jobs,
            reader=self.reader,
            changer=self.changer,
            runner=self.runner,
            replayer=replayer,
        )
        self.service = ChangeService(changer=self.changer, bulk=self.bulk)

    def begin(self, **settings: Any) -> None:
        """Adopt the trigger ``gh``, and start."""
        self.world.adopt(one_trigger(**settings))
        self.runner.startService()

    def next_server(self) -> JobsWorld:
        """Return a server over the same store, as it is found after this one was killed; it has begun."""
        following = JobsWorld(self.store.beside(), self.clock)
        following.begin()
        return following

    def bad_deploy(self, count: int, body: Callable[[int], bytes] = lambda n: b'{"n": %d}' % n) -> list[str]:
        """Accept so many events, which become dead letters; return their event ids."""
        before = len(self.world.rows())
        for number in range(count):
            event = happened(dedupe_key=f"d-{before + number}", lifted={"n": ["n"]})
            self.world.take(None, event, body=body(number)).addErrback(lambda failure: failure.trap(HarnError))
        for running in list(self.world.calls):
            running.raises(HandlerRejected("bad deploy"))
        return [row.event_id for row in self.world.rows()[before:]]

    def many(self, operation: Operation[Any, Any, Any], rate: str | None = None, **chosen: Any) -> Deferred[Any]:
        """Request an operation on many deliveries."""
        wanted = ChangeMany(**chosen, rate_limit=None if rate is None else Rate.parse(rate))
        return asked(operation, self.service, wanted)

    def one(self, operation: Operation[Any, Any, Any], event_id: str, **more: Any) -> Deferred[Any]:
        """Request an operation on one delivery."""
        return asked(operation, self.service, ChangeOne(event_id=event_id, **more))

    def turns(self, count: int = 50) -> None:
        """Run the calls that the reactor is to make at once, so often, without time passing."""
        self.clock.pump([0.0] * count)

    def jobs(self) -> list[Job]:
        """Return the jobs, the newest first."""
        found: list[Job] = []
        self.store.jobs.list(100).addCallback(found.extend)
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each delivery as the store holds it, by event id."""
        return {row.event_id: row.state.value for row in self.world.rows()}

    def replays(self) -> list[str]:
        """Return the event ids that the deliveries which repeat one name, in the order of their acceptance."""
        return [row.replay_of for row in self.world.rows() if row.replay_of is not None]
