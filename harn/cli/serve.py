"""``harn orchestrator serve``: run the orchestrator in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from harn.cli.shared import with_flags
from harn.options import OPTIONS, ServeOptions
from harn.orchestrator.signals import hold_back
from harn.processes import close_memory


@click.command()
@with_flags(*OPTIONS)
def serve(**given: Any) -> None:
    """
    Serve the triggers of a manifest, until SIGTERM or SIGINT.

    SIGHUP reloads the manifest and the code of its handlers; SIGUSR2 starts the program again, and hands over to it.
    """
    try:
        options = ServeOptions.from_values(given, os.environ)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    # From here on the process is a server's; a wrong option changes nothing of it.
    hold_back()
    close_memory()
    sys.exit(run(options))


def run(options: ServeOptions) -> int:
    """
    Serve with these options; return the process's exit status.

    :raises StateDirectoryUnusable: another server holds the state directory, which is known before a reactor is loaded.
    """
    from harn.store.lock import refuse_held
    from harn.systemd.activation import passed_descriptor
    from harn.upgrade.program import Inheritance, Program

    inheritance = Inheritance.taken_from(os.environ)
    if inheritance is None:
        refuse_held(options.state_dir)
    passed = passed_descriptor(os.environ)
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from harn.cli.running import run_service
    from harn.clocks import use_monotonic_time
    from harn.observability.logs import process_sinks, start_logging
    from harn.orchestrator.service import make_service

    use_monotonic_time(reactor)
    program = Program.of(sys.orig_argv, sys.executable, os.getcwd())
    start_logging(options.log_format, options.log_level, process_sinks(options.state_dir), globalLogBeginner)
    return run_service(make_service(options, reactor, os.environ, program, inheritance, passed), reactor)
