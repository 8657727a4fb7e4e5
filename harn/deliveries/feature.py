"""Operations on deliveries, as a feature of a server."""

from __future__ import annotations

from harn.deliveries import change_operations, job_operations
from harn.deliveries.bulk import Bulk
from harn.deliveries.change_operations import ChangeService
from harn.deliveries.changing import Canceller, Changer, Replayer
from harn.deliveries.elsewhere import CANCELS, Elsewhere
from harn.deliveries.job_runner import JobRunner
from harn.deliveries.operations import IMPORTING, OPERATIONS, DeliveryService, FixtureImporter
from harn.deliveries.selection import DeliveryReader
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake
from harn.lifecycle import ServersSeen, StoreChanged
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.triggers.registry import Registry


def install(server: Server) -> None:
    """Add the operations on deliveries, and the jobs of operators."""
    reader = server.add(
        DeliveryReader(
            clock=server.reactor,
            wall=server.wall,
            lists=server.store.lists,
            gates=server[Dispatcher].gates,
            threads=server.threads,
        )
    )
    service = DeliveryService(reader=reader, coordinator=server[Coordinator], traces=server.traces)
    server.operations.add(service, *OPERATIONS)
    importer = FixtureImporter(wall=server.wall, registry=server[Registry], intake=server[Intake])
    server.operations.add(importer, *IMPORTING)
    install_changes(server, reader)


def install_changes(server: Server, reader: DeliveryReader) -> None:
    """Add the operations that change deliveries, and their jobs."""
    wall, store, lifecycle = server.wall, server.store.jobs, server.lifecycle
    replayer = Replayer(
        wall=wall, store=store, registry=server[Registry], dispatcher=server[Dispatcher], lifecycle=lifecycle
    )
    dispatcher = server[Dispatcher]
    elsewhere = Elsewhere(server.reactor, wall, server.store, dispatcher)
    lifecycle.subscribe(StoreChanged, lambda event: elsewhere.changed() if event.concerns(CANCELS) else None)
    canceller = Canceller(wall=wall, store=store, reader=reader, dispatcher=dispatcher, elsewhere=elsewhere)
    changer = server.add(
        Changer(wall=wall, store=store, reader=reader, replayer=replayer, canceller=canceller, lifecycle=lifecycle)
    )
    runner = server.add(JobRunner(server.reactor, wall, store, reader, changer, server.records))
    lifecycle.subscribe(ServersSeen, lambda event: runner.take_over() if event.has_left and event.leads else None)
    bulk = server.add(Bulk(wall=wall, store=store, reader=reader, changer=changer, runner=runner, replayer=replayer))
    server.operations.add(ChangeService(changer=changer, bulk=bulk), *change_operations.OPERATIONS)
    server.operations.add(bulk, *job_operations.OPERATIONS)
    server.background.add(runner)
