"""What started this program: the command line, the service manager, or the old program of an upgrade."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.application.service import Service

from harn.orchestrator.terminal import Terminal
from harn.systemd.notify import ServiceManager
from harn.upgrade.old_process import OldProcess
from harn.upgrade.program import Program


@frozen
class Launch:
    """
    What started this program, and what it was given.

    :ivar program: how it was started; None when that is not known, and there is no upgrade in place.
    :ivar environ: what a new program of an upgrade is started with.
    :ivar old_process: the program whose place it takes, if any.
    :ivar passed: the descriptor of the listening socket that the service manager passed, if any.
    :ivar watchdog: makes what tells the service manager that we live, if it wants to know.
    :ivar terminal: finds the terminal of the process, if it has one; called when the service starts, after any fork.
    """

    service_manager: ServiceManager
    program: Program | None = None
    environ: Mapping[str, str] = field(factory=dict)
    old_process: OldProcess | None = None
    passed: int | None = None
    watchdog: Callable[[], Service | None] = lambda: None
    terminal: Callable[[], Terminal | None] = lambda: None
