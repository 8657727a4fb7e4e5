"""Reports each reload to the service manager: that it runs, how it ended, and what serves."""

from __future__ import annotations

from attrs import frozen

from harn.reload.report import ERROR, ReloadReport
from harn.systemd.notify import LONGEST_STATUS, ServiceManager, shortened


@frozen
class ReloadNotices:
    """Notifies ``service_manager``."""

    service_manager: ServiceManager

    def began(self) -> None:
        """Called when a reload begins that may change something."""
        self.service_manager.reloading()

    def ended(self, report: ReloadReport | None) -> None:
        """Called when it has ended; ``report`` is None when it ended without one."""
        self.service_manager.reloaded(None if report is None else status_of(report))


def status_of(report: ReloadReport) -> str:
    """Return in one line how a reload ended, and what serves."""
    serves = f"generation {report.generation} serves"
    if report.ok:
        return serves
    why = shortened(report.error or "unknown", LONGEST_STATUS - len(serves) - 60)
    what = f"reload failed at {report.stage or 'unknown'}" if report.status == ERROR else f"reload {report.status}"
    return f"{what}: {why}; {serves}"
