"""Reports each reload to the service manager: that it runs, how it ended, and what serves."""

from __future__ import annotations

from harn.lifecycle import Lifecycle
from harn.reload.events import ReloadBegan, ReloadEnded
from harn.reload.report import ERROR, ReloadReport
from harn.systemd.notify import LONGEST_STATUS, ServiceManager, shortened


class ReloadNotices:
    """Notifies ``service_manager``."""

    def __init__(self, service_manager: ServiceManager, lifecycle: Lifecycle) -> None:
        self._service_manager = service_manager
        lifecycle.subscribe(ReloadBegan, self._began)
        lifecycle.subscribe(ReloadEnded, self._ended)

    def _began(self, event: ReloadBegan) -> None:
        self._service_manager.reloading()

    def _ended(self, event: ReloadEnded) -> None:
        self._service_manager.reloaded(None if event.report is None else status_of(event.report))


def status_of(report: ReloadReport) -> str:
    """Return in one line how a reload ended, and what serves."""
    serves = f"generation {report.generation} serves"
    if report.ok:
        return serves
    why = shortened(report.error or "unknown", LONGEST_STATUS - len(serves) - 60)
    what = f"reload failed at {report.stage or 'unknown'}" if report.status == ERROR else f"reload {report.status}"
    return f"{what}: {why}; {serves}"
