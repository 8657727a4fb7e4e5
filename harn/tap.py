"""The twistd plugin: the options of ``twistd harn-orchestrator``, and the service it makes."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python import usage

from harn.observability.logfile import RotatingFile
from harn.observability.logs import LogWriter, TextSink, add_logging, process_sinks
from harn.observability.outputs import EXIT_LIMIT, outputs
from harn.observability.records import as_twistd
from harn.options import OPTIONS, ServeOptions
from harn.orchestrator.process import fork_and_wait
from harn.processes import close_memory

if TYPE_CHECKING:
    from harn.orchestrator.service import Orchestrator


TWISTD_LARGEST = 1_000_000
"""Size in bytes at which twistd rotates its log file."""


class Options(usage.Options):
    """The options of ``harn orchestrator serve``, as twistd reads them."""

    synopsis = "[options]"
    longdesc = "Serve the triggers of a manifest; the same as `harn orchestrator serve`."

    optParameters = [
        [name, None, None, f"{option.help} [{option.env}] (default: {option.default or 'none'})"]
        for option in OPTIONS
        if not option.is_switch
        for name in (option.name, *option.aliases)
    ]
    optFlags = [[option.name, None, f"{option.help} [{option.env}]"] for option in OPTIONS if option.is_switch]

    def postOptions(self) -> None:
        """
        Check all options, while twistd can still report errors.

        :raises twisted.python.usage.UsageError: one of them cannot be used.
        """
        given = {
            option.key: bool(self[option.name])
            if option.is_switch
            else next((self[name] for name in (option.name, *option.aliases) if self[name] is not None), None)
            for option in OPTIONS
        }
        try:
            self.serve = ServeOptions.from_values(given, os.environ)
        except ValueError as wrong:
            raise usage.UsageError(str(wrong)) from None
        if self.serve.workers > 1:
            raise usage.UsageError(
                f"--workers must be 1 for twistd, which runs one server, got {self.serve.workers}; use `harn serve`"
            )


def makeService(options: Options) -> IService:
    """
    Make the orchestrator; it starts no thread, child or socket before it is started.

    Where twistd is to make a daemon of it, this returns in a process of its own, and the operator's process waits for
    it: see `harn.orchestrator.process`.
    """
    twistd: Mapping[str, Any] = options.parent or {}
    report = None
    if twistd.get("nodaemon") is not None and not twistd["nodaemon"]:
        report = fork_and_wait(twistd.get("logfile") or "twistd.log")
    # Imported here, since importing our Klein apps installs a reactor, and twistd has an option for that.
    from twisted.internet import reactor

    from harn.clocks import use_monotonic_time
    from harn.orchestrator.process import hold_back
    from harn.orchestrator.service import Launch, make_service, print_errors
    from harn.systemd import ServiceManager, taken_by_twisted

    hold_back()
    use_monotonic_time(reactor)
    given = options.serve
    close_memory()
    # Before twistd takes standard output for its log, and both for printed text.
    sinks = process_sinks(given.state_dir)
    add_logging(given.log_format, given.log_level, sinks, globalLogPublisher)
    launch = Launch(
        service_manager=ServiceManager.of(reactor, os.environ),
        environ=os.environ,
        passed=taken_by_twisted(reactor),
        has_terminal=True,
    )
    service = make_service(given, reactor, launch)
    service.started.addErrback(print_errors)
    if report is not None:
        said = report
        service.started.addCallbacks(lambda _: said.ready(), lambda failure: said.failed(failure.getErrorMessage()))
    atexit.register(exit_as, service)
    root = Root(twistd_log(twistd, sinks.stdout))
    service.setServiceParent(root)  # type: ignore[no-untyped-call]
    return root


class Root(MultiService):
    """
    The service that twistd runs: the orchestrator.

    :param observer: receives twistd's log events; None for twistd's own.
    """

    def __init__(self, observer: ILogObserver | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Attach to twistd's application, and set its log observer."""
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def twistd_log(given: Mapping[str, Any], stdout: TextSink | None) -> ILogObserver | None:
    """
    Make the observer of twistd's log: it never blocks, and reopens a file that was moved.

    :param given: twistd's own options; with a logger or syslog, None is returned.
    :raises OSError: the log file cannot be opened.
    """
    name = given.get("logfile") or ("-" if given.get("nodaemon") else "twistd.log")
    if given.get("logger") or given.get("syslog"):
        return None
    if name == "-":  # which twistd refuses for a daemon
        return None if stdout is None or not given.get("nodaemon") else LogWriter(as_twistd, [stdout])
    # As twistd itself does: keep every full file.
    file = RotatingFile(os.path.abspath(name), TWISTD_LARGEST, keep=None, mode=0o666)
    file.open()
    return LogWriter(as_twistd, [outputs.open("twistd", file)])


def exit_as(service: Orchestrator) -> None:
    """End the process with the service's exit status: twistd itself always exits with 0."""
    if service.exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        outputs.flush(EXIT_LIMIT)
        os._exit(service.exit_code)
