"""The features of a server, in the order in which they are installed; it ends in the reverse order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from harn.alerts import feature as alerts
from harn.api_keys import feature as api_keys
from harn.backup import feature as backup
from harn.circuits import feature as circuits
from harn.console import feature as console
from harn.deliveries import feature as deliveries
from harn.dispatch import feature as dispatch
from harn.history import feature as history
from harn.listener import feature as listener
from harn.options import ServeOptions
from harn.orchestrator import maintenance, publish, recovery, status
from harn.reload import feature as reload
from harn.rollout import feature as rollout
from harn.schedules import feature as schedules
from harn.server import Install
from harn.servers import feature as servers
from harn.statistics import feature as statistics
from harn.traces import feature as traces


def features(options: ServeOptions, *, takes_over: bool = False) -> Iterator[Install]:
    """
    Yield the ``install`` function of each feature.

    :param takes_over: the server takes the place of another program.
    """
    yield traces.install
    yield publish.install
    yield servers.install
    yield partial(statistics.install_totals, takes_over=takes_over)
    yield dispatch.install
    yield servers.install_condition
    yield api_keys.install
    yield partial(listener.install, takes_over=takes_over)
    yield history.install_planner
    yield reload.install
    yield servers.install_agreement
    yield rollout.install
    yield history.install
    yield deliveries.install
    yield circuits.install
    yield partial(schedules.install, takes_over=takes_over)
    yield alerts.install
    yield recovery.install
    yield maintenance.install
    yield backup.install
    yield statistics.install
    if options.watch:
        from harn.watch import feature as watch  # watchdog is imported by those who watch

        yield watch.install
    yield status.install
    yield dispatch.install_synthetic_events
    yield listener.install_admin
    if not options.no_console:
        yield console.install
