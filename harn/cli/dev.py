"""``harn dev``: a server for a person who writes handlers: it reloads at each save, and prints a line a delivery."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from harn.auth.credentials import token_path
from harn.cli.demo_secret import DemoEnvironment, derive_public_keys, make_demo_secret
from harn.cli.options import with_flags
from harn.cli.output import print_error
from harn.errors import HarnError
from harn.options import MANIFEST, OPTIONS, STATE_DIR, ServeOptions, absolute

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from harn.lifecycle import Accepted, Lifecycle, ServerStarted, Settled, SettledDelivery
    from harn.manifest.model import TriggerSpec
    from harn.model.problem import Problem
    from harn.reload.excerpts import Excerpts
    from harn.reload.interfaces import Adopted, ReloadEnded
    from harn.reload.results import ProblemInfo
    from harn.server import Server

BIND = next(option for option in OPTIONS if option.name == "bind")
USUAL = str(BIND.default)
LONGEST_RESULT = 200
"""Characters of a result that a line shows."""


class NoManifest(HarnError):
    """There is no manifest to serve."""


@click.command()
@with_flags(MANIFEST, STATE_DIR, BIND)
def dev(**given: Any) -> None:
    """
    Serve the triggers of a manifest while you write them: reload at each save, and show each delivery on one line.

    Secrets that are not set have a demo value, which `harn send` signs with. Problems of a save are shown with their
    source. Without --bind another port is taken where 8080 is in use. Key r sends the last delivery again, o opens the
    console in a browser, q ends.
    """
    from harn.cli.serve import run
    from harn.connectors.catalog import Catalog
    from harn.orchestrator.process import hold_back
    from harn.store.lock import refuse_held

    try:
        options = ServeOptions.from_values(
            {"log_format": "pretty", "watch": True, **usual_address(given, os.environ)}, os.environ
        )
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None
    if not os.path.lexists(options.manifest):
        raise NoManifest(f"there is no {options.manifest_name} here; write one, and a handler, with: harn init")
    refuse_held(options.state_dir)
    hold_back()
    value = make_demo_secret(options.state_dir)
    environ = DemoEnvironment(os.environ, value, derive_public_keys(Catalog.discover().plugins, value))
    sys.exit(run(options, environ, (Stream(options, environ).install,)))


def usual_address(given: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the options with a free port, where no address is given and the usual port is in use."""
    if given["bind"] is not None or environ.get(BIND.env):
        return given
    host, port = BIND.read(USUAL)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return {**given, "bind": f"{host}:0"}
    return given


class Stream:
    """Prints lines for a person who watches: the outcome of each delivery, and the source of a save's problems."""

    def __init__(self, options: ServeOptions, environ: DemoEnvironment) -> None:
        self._options = options
        self._environ = environ
        self._last = ""
        self._url = ""
        self._trial = "harn send TRIGGER"
        self._reactor: Any = None

    def install(self, server: Server) -> None:
        """Print the events of a server from now on, and read keys where there is a terminal."""
        self._reactor = server.reactor
        self.subscribe(server.lifecycle)
        if has_keys():
            terminal = Terminal(self._reactor, self)
            self._reactor.callWhenRunning(terminal.open)
            self._reactor.addSystemEventTrigger("during", "shutdown", terminal.close)

    def subscribe(self, lifecycle: Lifecycle) -> None:
        """Print these events from now on."""
        from harn.lifecycle import Accepted, ServerStarted, Settled
        from harn.reload.interfaces import Adopted, ReloadEnded

        lifecycle.subscribe(ServerStarted, self._started)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(Adopted, self._adopted)
        lifecycle.subscribe(ReloadEnded, self._reload_ended)

    def press(self, key: str) -> None:
        """See `IKeys.press`."""
        if key in ("q", "Q"):
            os.kill(os.getpid(), signal.SIGINT)
        elif key in ("r", "R"):
            if self._last:
                self._send_again(self._last)
            else:
                show(f"there is no delivery to send again yet; in a second terminal: {self._trial}", "yellow")
        elif key in ("o", "O"):
            self._open_console()

    def _started(self, event: ServerStarted) -> None:
        self._url = event.url

    def _open_console(self) -> None:
        """Open the console in the browser of the desktop; where there is none, its address is enough."""
        import webbrowser

        from twisted.internet.threads import deferToThreadPool

        address = f"{self._url}/console/"
        show(f"{address}  sign in with: cat {shlex.quote(token_path(self._options.state_dir))}", "bold")
        if not has_desktop(os.environ):
            return
        opening = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), webbrowser.open, address)
        opening.addErrback(lambda failure: print_error(f"no browser can be opened: {failure.value}"))

    def _accepted(self, event: Accepted) -> None:
        self._last = event.deliveries[-1].delivery.event_id

    def _settled(self, event: Settled) -> None:
        for each in event.deliveries:
            self._settled_one(each)

    def _settled_one(self, event: SettledDelivery) -> None:
        """Print how a delivery ended; a failed attempt has a line in the log, with its traceback."""
        from harn.model.event import decode_envelope

        settlement, attempt = event.settlement, event.settlement.attempt
        if attempt is None or attempt.error_class is not None:
            return
        took = f"{(attempt.completed_at - attempt.started_at) * 1000:.0f} ms"
        result = "" if settlement.result is None else settlement.result.decode("utf-8", "replace")
        shown = result if len(result) <= LONGEST_RESULT else result[:LONGEST_RESULT] + " ..."
        at = time.strftime("%H:%M:%S", time.localtime(attempt.completed_at))
        kind = decode_envelope(event.envelope).kind
        said = f"{at} {event.binding} {kind} {settlement.state}, {took}  {event.event_id}"
        show(f"{said}  {shown}" if shown and shown != "null" else said, "green" if settlement.succeeded else "yellow")

    def _adopted(self, event: Adopted) -> None:
        """Choose the command with which the first trigger is tried."""
        binding = next(iter(event.candidate.generation.bindings.values()), None)
        if binding is not None:
            self._trial = trial_of(binding.spec)

    def _reload_ended(self, event: ReloadEnded) -> None:
        from harn.reload.report import START

        report = event.report
        if report is None:
            return
        if report.ok and report.source == START:
            self._welcome()
        elif report.problems and report.source != START:  # a start that failed shows them as it ends
            self._show_source(report.problems)

    def _show_source(self, problems: Sequence[Problem]) -> None:
        """Print the lines of source below the log's line about a save, which has the problems."""
        from twisted.internet.threads import deferToThreadPool

        from harn.reload.excerpts import Excerpts
        from harn.reload.results import ProblemInfo

        named, excerpts = [ProblemInfo.of(problem) for problem in problems], Excerpts(self._options.manifest)
        reading = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), source_of, named, excerpts)
        reading.addCallback(lambda lines: show("\n".join(lines), "yellow") if lines else None)

    def _welcome(self) -> None:
        if self._environ.filled:
            show(f"demo values for secrets that are not set: {', '.join(sorted(self._environ.filled))}", "yellow")
        keys = "r sends the last delivery again, o opens the console, q ends; " if has_keys() else ""
        show(f"{keys}in a second terminal: {self._trial}{place_of(self._options.state_dir)}", "bold")

    def _send_again(self, event_id: str) -> None:
        """Replay a delivery, by the admin API as any command does: what it says is said here."""
        from twisted.internet.threads import deferToThreadPool

        sending: Deferred[Any] = deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), replay, self._options.state_dir, event_id
        )

        def failed(failure: Failure) -> None:
            print_error(str(failure.value))

        sending.addCallbacks(lambda new: show(f"{event_id} sent again as {new}", "bold"), failed)


def trial_of(spec: TriggerSpec) -> str:
    """Return the command with which a trigger is tried: one without a route gets no requests."""
    return f"harn {'send' if spec.path else 'fire'} {spec.id}"


def has_keys() -> bool:
    """Return whether keys can be read: a program in the background of a terminal is stopped when it tries."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # it is not the terminal of this session
        return False


def has_desktop(environ: Mapping[str, str]) -> bool:
    """Return whether a browser opens in a window of its own: one for text would take the terminal."""
    return sys.platform == "darwin" or any(map(environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))


def place_of(state_dir: str) -> str:
    """Return the option with which a command in this folder finds the state directory; empty where it needs none."""
    here = os.getcwd()
    if state_dir == absolute(here, str(STATE_DIR.default)):
        return ""
    return f" -s {shlex.quote(os.path.relpath(state_dir) if state_dir.startswith(f'{here}/') else state_dir)}"


def source_of(problems: list[ProblemInfo], excerpts: Excerpts) -> list[str]:
    """
    Return the source lines of problems, which have their numbers; with a file's name above where there are several.

    Blocks: for a thread.
    """
    from harn.cli.reload import firsts_of

    has_several = len({problem.file for problem in problems}) > 1
    lines: list[str] = []
    named = ""
    for problem in firsts_of(problems):
        source = list(excerpts.lines(problem))
        if source and has_several and problem.file != named:
            named = problem.file
            lines.append(f"{named}:")
        lines += source
    return lines


def replay(state_dir: str, event_id: str) -> str:
    """Request a replay of the server in this process; return the id of the new delivery. Blocks: for a thread."""
    from harn.cli.place import ServerTarget

    given: dict[str, Any] = {"config": None, "state_dir": state_dir, "admin_url": None}
    given |= {"cacert": None, "insecure": True, "timeout": 60.0}
    answer = ServerTarget.of_options(given, os.environ).client().post(f"/admin/deliveries/{event_id}/replay", {})
    return str(answer.expect_ok("items")["items"][0]["replayed_as"])


def show(text: str, colour: str) -> None:
    """Print a line, in a colour where standard output is a terminal."""
    from harn.model.display import visible_lines

    for line in visible_lines(text):
        click.secho(line, bold=True) if colour == "bold" else click.secho(line, fg=colour)


class IKeys(Protocol):
    """Takes the keys of a terminal."""

    def press(self, key: str) -> None:
        """Called with each key."""


class Terminal:
    """The keys of a terminal, one by one, read by the reactor."""

    def __init__(self, reactor: Any, keys: IKeys) -> None:
        self._reactor = reactor
        self._keys = keys
        self._before: list[Any] | None = None
        self._continued: Any = None

    def open(self) -> None:
        """Read keys without waiting for the end of a line."""
        import termios

        self._before = termios.tcgetattr(self.fileno())
        self._continued = signal.signal(signal.SIGCONT, lambda *_: self.resume())
        self.resume()

    def resume(self) -> None:
        """Called when the process continues after Ctrl-Z, too: its shell has changed the terminal meanwhile."""
        import tty

        if has_keys():
            tty.setcbreak(self.fileno())
            self._reactor.addReader(self)
        else:
            self._reactor.removeReader(self)

    def close(self) -> None:
        """Leave the terminal as it was."""
        import termios

        if self._before is None:
            return
        signal.signal(signal.SIGCONT, self._continued)
        self._reactor.removeReader(self)
        if has_keys():
            termios.tcsetattr(self.fileno(), termios.TCSADRAIN, self._before)
        self._before = None

    def fileno(self) -> int:
        """Return standard input."""
        return 0

    def doRead(self) -> None:  # noqa: N802 - of `IReadDescriptor`
        """Called when a key was pressed."""
        keys = os.read(self.fileno(), 64)
        if not keys:
            self.close()
        for key in keys.decode("latin-1"):
            self._keys.press(key)

    def connectionLost(self, reason: Failure) -> None:
        """Called when standard input is gone."""
        self.close()

    def logPrefix(self) -> str:  # noqa: N802 - of `ILoggingContext`
        """Return the name of this reader in logs."""
        return "terminal"
