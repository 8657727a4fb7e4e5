"""The twistd plugin's two halves: what ``twistd harn-orchestrator`` can be told, and the service it makes."""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING

from twisted.application.service import IService
from twisted.logger import globalLogPublisher
from twisted.python import usage

from harn.observability.logs import add_logging
from harn.orchestrator.options import OPTIONS, ServeOptions

if TYPE_CHECKING:
    from harn.orchestrator.service import Orchestrator


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
        Check them all, while twistd can still say what is wrong.

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


def makeService(options: Options) -> IService:
    """Make the orchestrator; it starts no thread, child or socket before it is started."""
    # Here, since importing our Klein apps installs a reactor, and twistd has an option for that.
    from twisted.internet import reactor

    from harn.clocks import use_monotonic_time
    from harn.listener.activation import taken_by_twisted
    from harn.orchestrator.assemble import make_service

    use_monotonic_time(reactor)
    told = options.serve
    # Now, while standard error is not yet part of twistd's log.
    add_logging(told.log_format, told.log_level, told.state_dir, sys.stderr, globalLogPublisher)
    service = make_service(told, reactor, os.environ, passed=taken_by_twisted(reactor))
    atexit.register(exit_as, service)
    return service


def exit_as(service: Orchestrator) -> None:
    """End the process with the service's exit status: twistd itself knows none but 0."""
    if service.exit_code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(service.exit_code)
