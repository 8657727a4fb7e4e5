"""
A server in the test's own process: the product's features over a store in memory, scripted interpreters and a clock.

A test makes a `KitServer` and installs the features that it needs, as `harn.orchestrator.features` does; what
those look for and the test wants to see or to break, it adds to the server before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.lifecycle import Lifecycle
from harn.observability.subscribers import Counting
from harn.options import ServeOptions
from harn.server import Runtime, Server
from harn.testing.clocks import SteppedWall
from harn.testing.scripted import FakeInterpreters
from harn.testing.stores.pumped import PumpedStore

OPTIONS = ServeOptions(manifest="", manifest_name="", state_dir="", host="", port=0)


class KitServer(Server):
    """
    A server without features.

    :param clock: drives everything, as the reactor does.
    :param store: an earlier one that was closed, for a server after a restart; it is opened again.
    """

    store: PumpedStore
    interpreters: FakeInterpreters
    wall: SteppedWall

    def __init__(
        self,
        clock: Any,
        *,
        options: ServeOptions = OPTIONS,
        environ: Mapping[str, str] = {},
        store: PumpedStore | None = None,
    ) -> None:
        wall = SteppedWall(clock)
        if store is None:
            store = PumpedStore(wall)
        store.open()
        runtime = Runtime(clock, wall, random=lambda: 0.0)
        super().__init__(runtime, options, environ, Lifecycle(), store, FakeInterpreters())
        Counting(self.metrics, self.lifecycle)
