"""
The server of a command: the one of its state directory, or the one given by URL; its triggers; and looking at it again.

A command that looks at it again and again waits between two looks, and continues where a failure is only a restart.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import Any, Protocol, Self

import click
from attrs import field, frozen
from msgspec import Struct

from harn.auth.credentials import API_KEYS, HMAC_SECRET, Credentials, read_token, token_path
from harn.cli.client import AdminClient, AnswerTimedOut, OperationRefused, ServerUnreachable, ask
from harn.cli.completion import complete_path
from harn.cli.options import Command, Decorator, Seconds
from harn.cli.output import warn
from harn.errors import HarnError, RouteUnknown, SecretUnavailable
from harn.model.display import describe_unknown
from harn.options import MANIFEST, STATE_DIR, absolute, value_of
from harn.orchestrator.operations import NoParameters, list_bindings
from harn.store.lock import holder, read_state, running_url, served_manifest, state_path

LOOKED_FOR = 3.0
"""Seconds that a state file is looked for whose server runs."""


CACERT = "Certificates (PEM) to trust instead of the system's."


class NoServer(HarnError):
    """No server runs on the state directory."""


class ServerHidden(NoServer):
    """A server holds the state directory, and its state file does not say where it listens."""


class OtherManifest(HarnError):
    """The server that was found is not the one that was meant: it serves another manifest."""


class ServerLocation(Struct, frozen=True, kw_only=True):
    """
    Which manifest and state directory a command is about.

    :ivar manifest: as it was given.
    :ivar is_named: by a flag, so that a server of another is not the one that is meant.
    :ivar state_dir: the absolute path of the state directory.
    :ivar state_dir_name: that path as it was given.
    """

    manifest: str
    is_named: bool = False
    state_dir: str
    state_dir_name: str

    @classmethod
    def of_options(cls, config: str | None, state_dir: str | None, environ: Mapping[str, str]) -> ServerLocation:
        """Put together what flags, environment and defaults say."""
        name = value_of(STATE_DIR, {"state_dir": state_dir}, environ)
        return cls(
            manifest=value_of(MANIFEST, {"config": config}, environ),
            is_named=config is not None,
            state_dir=absolute(os.getcwd(), name),
            state_dir_name=name,
        )

    def server_url(self) -> str | None:
        """
        Return the URL of the server that runs here, None if none does, or none that can be asked yet.

        :raises ServerHidden: one does, and its state file stays lost or damaged.
        :raises OtherManifest: it serves another manifest than the one that was named.
        """
        url = running_url(self.state_dir)
        if url is None and self._is_hidden():
            url = self._found_again()
        if url is not None and self.is_named:
            self._check_manifest()
        return url

    def _is_hidden(self) -> bool:
        state = read_state(self.state_dir)
        return (state is None or "listener_url" not in state) and holder(self.state_dir) is not None

    def _found_again(self) -> str | None:
        """
        Wait until the server has written its state file again, as it does each second.

        :raises ServerHidden: it does not.
        """
        ends_at = time.monotonic() + LOOKED_FOR
        while time.monotonic() < ends_at:
            time.sleep(0.1)
            if not self._is_hidden():
                return running_url(self.state_dir)
        raise ServerHidden(
            f"a server (pid {holder(self.state_dir) or 'unknown'}) holds {self.state_dir_name}, but its state file "
            f"{state_path(self.state_dir_name)} is missing or damaged, so its address is not known; it may "
            "be starting: wait, or give its address with --admin-url, or reload it with SIGHUP"
        )

    def _check_manifest(self) -> None:
        served = served_manifest(self.state_dir)
        if served is None or os.path.realpath(served) == os.path.realpath(self.manifest):
            return
        there = "" if os.path.exists(self.manifest) else ", which does not exist"
        raise OtherManifest(
            f"the server on {self.state_dir_name} serves {served}, not {self.manifest}{there}; leave out --config, or "
            "name the other server's state directory with --state-dir"
        )

    def needed_listener(self) -> str:
        """
        Return the URL at which senders reach the server that runs here.

        :raises NoServer, OtherManifest: as `needed_url` does.
        """
        url = self.needed_url()
        listener = (read_state(self.state_dir) or {}).get("listener_url")
        return listener if isinstance(listener, str) else url

    def needed_url(self) -> str:
        """
        Return the URL of the server that runs here.

        :raises NoServer: none does, or none that can be asked; says what to do.
        :raises OtherManifest: see `server_url`.
        """
        url = self.server_url()
        if url is None:
            pid = holder(self.state_dir)
            if pid is not None:
                raise ServerHidden(
                    f"a server (pid {pid or 'unknown'}) holds {self.state_dir_name}, but does not serve: it is "
                    "starting or ending; try again in a moment"
                )
            raise NoServer(
                f"no server runs on {self.state_dir_name}; start one with: "
                f"harn orchestrator serve --config {self.manifest} --state-dir {self.state_dir_name}"
            )
        return url


@frozen(kw_only=True)
class ServerTarget:
    """
    Which server a command is about, and how it is reached: what `with_server` gives a command.

    :ivar admin_url: where it was pointed to, if it was; see `AdminClient` for the rest.
    """

    location: ServerLocation
    environ: Mapping[str, str] = field(repr=False)
    admin_url: str | None
    cacert: str | None
    insecure: bool
    timeout: float

    @classmethod
    def of_options(cls, given: Mapping[str, Any], environ: Mapping[str, str]) -> ServerTarget:
        """
        Put together what flags, environment and defaults say; ``given`` has the flags' values by name.

        :raises click.UsageError: the server is found by its URL, so that naming a manifest would do nothing.
        """
        if given["admin_url"] is not None and given["config"] is not None:
            raise click.UsageError("--config selects a server on this machine; it cannot be used with --admin-url")
        return cls(
            location=ServerLocation.of_options(given["config"], given["state_dir"], environ),
            environ=environ,
            admin_url=given["admin_url"],
            cacert=given["cacert"],
            insecure=given["insecure"],
            timeout=given["timeout"],
        )

    def client(self) -> AdminClient:
        """
        Make a client of the server.

        :raises NoServer: none runs; says how to start one.
        :raises SecretUnavailable: a file of credentials cannot be read.
        """
        return self._client(self._needed_url())

    def client_showing(self, credentials: Credentials) -> AdminClient:
        """
        Make a client of the server that shows these credentials.

        :raises NoServer: none runs; says how to start one.
        """
        return self._client_at(self._needed_url(), credentials)

    def _needed_url(self) -> str:
        return self.location.needed_url() if self.admin_url is None else self.admin_url

    def client_if_any(self) -> AdminClient | None:
        """
        Make a client of the server, None if none runs.

        :raises SecretUnavailable: a file of credentials cannot be read.
        """
        url = self.location.server_url() if self.admin_url is None else self.admin_url
        return None if url is None else self._client(url)

    def _client(self, url: str) -> AdminClient:
        credentials = Credentials.from_environment(self.environ)
        if not credentials.configured and self.admin_url is None:  # else it may be anybody's server
            token = read_token(self.location.state_dir)
            if token is None:
                path = token_path(self.location.state_dir_name)
                if os.path.lexists(token_path(self.location.state_dir)):
                    what = "cannot be read; run this as the server's user"
                else:
                    what = "is missing; restart the server, which writes it (kill -HUP reloads without it)"
                raise SecretUnavailable(
                    f"no credentials for the server: {path} {what}, or set"
                    f" {API_KEYS} or {HMAC_SECRET} as for the server"
                )
            credentials = Credentials(keys=(token,))
        return self._client_at(url, credentials)

    def _client_at(self, url: str, credentials: Credentials) -> AdminClient:
        return AdminClient(
            url=url, credentials=credentials, timeout=self.timeout, cacert=self.cacert, insecure=self.insecure
        )


OF_SERVER = ("config", "state_dir", "admin_url", "cacert", "insecure", "timeout")
"""The options from which a `ServerTarget` is made."""


def with_server(command: Command) -> Command:
    """Return a command what it takes to reach a server, which it gets as ``target``; stands below `with_place`."""
    return with_server_within(120.0)(command)


def with_server_within(seconds: float) -> Decorator:
    """Return a command what it takes to reach a server that may need so many seconds."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_target(**given: Any) -> Any:
            of_server = {name: given.pop(name) for name in OF_SERVER}
            return command(target=ServerTarget.of_options(of_server, os.environ), **given)

        for option in reversed(
            (
                click.option(
                    "--admin-url", metavar="URL", help="Where the server is, if not where its state file says."
                ),
                click.option("--cacert", metavar="PATH", help=CACERT, shell_complete=complete_path),
                click.option("--insecure", is_flag=True, help="Accept any certificate."),
                click.option(
                    "--timeout",
                    type=Seconds(),
                    default=seconds,
                    show_default=True,
                    metavar="SECONDS",
                    help="How long to wait for the answer.",
                ),
            )
        ):
            with_target = option(with_target)
        return with_target

    return decorate


def served_triggers(client: AdminClient) -> Sequence[str]:
    """Return the ids of a server's triggers, also of those that only drain, in alphabetical order."""
    return sorted({each.id for each in ask(client, list_bindings, NoParameters()).result.bindings})


def recorded_triggers(state_dir: str) -> Sequence[str]:
    """Return the ids of the triggers in a state file."""
    triggers = (read_state(state_dir) or {}).get("triggers", [])
    return [str(each.get("id")) for each in triggers if isinstance(each, dict)]


def check_trigger(client: AdminClient, trigger: str) -> None:
    """
    Make sure that a server has a trigger.

    :raises RouteUnknown: it has not; says which there are.
    """
    known = served_triggers(client)
    if trigger not in known:
        raise RouteUnknown(describe_unknown(trigger, known))


def note_unknown(target: ServerTarget, trigger: str | None) -> None:
    """
    Print on standard error that a trigger is unknown, if it is: called when a list of its deliveries is empty.

    The command succeeds all the same: deliveries of a trigger that was removed are listed by its id.
    """
    if not trigger:
        return
    client = target.client_if_any()
    known = recorded_triggers(target.location.state_dir) if client is None else served_triggers(client)
    if trigger not in known:
        warn(describe_unknown(trigger, known))


END_KEYS = ("q", "Q", "\x03")
"""Keys that end a display; the last is Ctrl-C."""


class Wait(Protocol):
    """The time between two looks."""

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the user has ended the looking meanwhile."""


class Sleep:
    """A wait that the user ends with Ctrl-C alone."""

    def wait(self, seconds: float) -> bool:
        """See `Wait.wait`."""
        time.sleep(seconds)
        return False


class Keys:
    """A wait that one of `END_KEYS` ends, where keys can be pressed; a context manager, which reads them one by one."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if sys.stdin.isatty():
            import termios
            import tty

            self._descriptor = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> bool:
        """See `Wait.wait`."""
        if self._descriptor is None:
            return Sleep().wait(seconds)
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        return bool(ready) and os.read(self._descriptor, 1).decode("latin-1") in END_KEYS


def may_come_back(error: HarnError) -> bool:
    """Return whether a server, or what stands before it, answers like this while it is restarted."""
    if isinstance(error, OperationRefused):
        return error.status >= 500
    return isinstance(error, ServerUnreachable | AnswerTimedOut | NoServer)
