"""Alerts as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

import socket
from collections import Counter

from harn.alerts.board import Board
from harn.alerts.keeping import Keeper
from harn.alerts.operations import OPERATIONS, AlertOperations
from harn.alerts.runner import AlertRunner
from harn.alerts.senders import HttpSender, MailSender, Senders
from harn.alerts.service import AlertService, AlertWatcher, LatenessService
from harn.dispatch.dispatcher import Dispatcher
from harn.manifest.alerts import EMAIL, SLACK, WEBHOOK
from harn.observability.metrics import Metrics
from harn.reload.interfaces import Adopted, FirstServes, ReloadsClosed
from harn.server import DRAINING, Server


def install(server: Server) -> None:
    """Add the alerts, and the senders of their messages."""
    install_senders(server)
    install_alerts(server)


def install_senders(server: Server) -> None:
    """Add the senders of messages."""
    reactor, wall = server.reactor, server.wall
    http = HttpSender(reactor, wall)
    mail = MailSender(reactor, wall, server.threads, socket.gethostname())
    server.add(Senders({SLACK: http, WEBHOOK: http, EMAIL: mail}))


def install_alerts(server: Server) -> None:
    """Add the alerts, with their operations and gauges."""
    reactor, wall = server.reactor, server.wall
    board = Board()
    keeper = Keeper(reactor, wall, server.store.checkpoints)
    runner = AlertRunner(reactor, wall, board, keeper, server[Senders], server.metrics, socket.gethostname())
    watcher = AlertWatcher(server.lifecycle, wall, board, runner)
    service = server.add(AlertService(reactor, wall, board, keeper, runner, watcher))
    server.services.add(service)
    server.background.add(LatenessService(reactor, wall, server.store.totals, server[Dispatcher], board, runner))
    server.lifecycle.subscribe(Adopted, lambda event: None if event.waits else service.begin())
    server.lifecycle.subscribe(FirstServes, lambda event: service.begin())
    server.lifecycle.subscribe(ReloadsClosed, lambda event: reloads_closed(server, service))
    server.operations.add(AlertOperations(board=board, runner=runner, wall=wall), *OPERATIONS)
    add_alert_gauges(server.metrics, runner)


def reloads_closed(server: Server, service: AlertService) -> None:
    """End the alerts if another program takes over. A server that stops still counts events until it has drained."""
    if server.readiness.phase != DRAINING:
        service.hand_over()


def add_alert_gauges(metrics: Metrics, runner: AlertRunner) -> None:
    """Add the gauges of alerts."""

    def firing() -> dict[tuple[str, ...], float]:
        counts: Counter[tuple[str, ...]] = Counter()
        for entry in runner.board:
            counts[(entry.rule.spec.on,)] += entry.state.is_firing
        return {labels: float(count) for labels, count in counts.items()}

    metrics.gauge("harn_alerts_firing", "Alerts that have begun and not ended.", firing, ("on",))
    metrics.gauge("harn_alerts_pending", "Messages of alerts that are not sent so far.", lambda: float(runner.pending))
