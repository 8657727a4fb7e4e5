"""What a reload replaced dies by reference count alone."""

from __future__ import annotations

import gc
import weakref

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Lifecycle
from harn.triggers.binding import BindingVersion
from harn.triggers.pool import KeyedPool, Shared
from harn.triggers.registry import Registry
from harn.triggers.routing import Route
from tests.triggers.examples import version


class Thing:
    """An interpreter or a receiver, as far as it is held."""


class UnclosingPool(KeyedPool[Thing]):
    """Closes a thing without a trace of it."""

    async def close(self, value: Thing) -> None:
        """See `KeyedPool.close`."""


@frozen(eq=False)
class Generation:
    """What holds everything else."""

    bindings: dict[str, BindingVersion]
    routes: dict[str, Route]
    interpreter: Shared[Thing]


class LifetimeTests(SynchronousTestCase):
    def test_a_replaced_generation_dies_without_the_collector(self) -> None:
        """After adopt and drain nothing refers to it, nor to its versions, routes, interpreter and receiver."""
        registry = Registry(Lifecycle())
        pool = UnclosingPool()

        def generation(number: int) -> Generation:
            binding = version(number)
            interpreter = pool.add(("vm", number), Thing())
            binding.destination = interpreter.retain()  # type: ignore[assignment]  # only counted here
            receiver = pool.add(("receiver", number), Thing())
            route = Route(path="/x", binding=binding, receiver=receiver, authentication="public")
            return Generation({"gh": binding}, {"/x": route}, interpreter)

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        live = generation(1)
        registry.adopt(live.bindings, [], 0.0)
        dying = [
            weakref.ref(each)
            for each in (
                live,
                live.bindings["gh"],
                live.routes["/x"],
                live.interpreter.value,
                live.routes["/x"].receiver.value,
            )
        ]
        live.routes["/x"].lease()
        following = generation(2)
        registry.adopt(following.bindings, live.bindings.values(), 1.0)
        live.routes["/x"].release()
        live.routes["/x"].receiver.release()
        live.interpreter.release()
        live = following
        self.assertEqual([each() for each in dying], [None] * len(dying))
        self.assertEqual([binding.key for binding in registry], ["gh@v2"])
