"""
The options of ``serve``, defined once for the command line, the environment and twistd.

A flag wins over its environment variable, which wins over the default. What the manifest may also say (drain, pumps,
log level) stays None here if it is not given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from harn.observability.log_limits import LEVELS

DEFAULT_MANIFEST = "harn.toml"
DEFAULT_STATE_DIR = ".harn/orchestrator"
LOG_FORMATS = ("text", "pretty", "json")
VMS = ("child", "inline")
ROLES = ("single-tenant", "multi-tenant")

Reader = Callable[[str], Any]
"""Makes a value of a text; raises ValueError with a message that says what is wanted."""

_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off", ""))


@frozen(kw_only=True)
class Option:
    """
    One option.

    :ivar name: the flag without its dashes; ``aliases`` mean the same.
    :ivar env: its environment variable.
    :ivar default: None when it has none, or when the manifest has it.
    :ivar read: makes a value of a text.
    :ivar metavar: what stands for the value in the help; None for a flag without one.
    """

    name: str
    aliases: tuple[str, ...] = ()
    env: str
    default: str | None = None
    read: Reader
    metavar: str | None
    help: str

    @property
    def key(self) -> str:
        """The name as an identifier, for example ``state_dir``."""
        return self.name.replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.metavar is None


def one_of(choices: tuple[str, ...]) -> Reader:
    """Make a reader that takes one of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, got {text!r}")
        return text

    return read


def read_text(text: str) -> str:
    """Read any text that is not empty."""
    if not text:
        raise ValueError("the value is empty")
    return text


def read_switch(text: str) -> bool:
    """Read a truth value as environment variables spell it."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def read_count(text: str) -> int:
    """Read a whole number of at least 0."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def read_positive(text: str) -> int:
    """Read a whole number; 0 means 1."""
    return max(1, read_count(text))


def read_seconds(text: str) -> float:
    """Read seconds, at least 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError(f"must be a number of seconds >= 0, got {text!r}")
    return seconds


def read_grace(text: str) -> float:
    """Read seconds, less than 1 meaning 1."""
    return max(1.0, read_seconds(text))


def read_role(text: str) -> str:
    """Read the role; there is one so far."""
    role: str = one_of(ROLES)(text)
    if role == "multi-tenant":
        raise ValueError("multi-tenant is not supported yet; use single-tenant")
    return role


def read_address(text: str) -> tuple[str, int]:
    """Read ``host:port``, with an IPv6 host in brackets; port 0 picks a free one."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not separator or not host or (":" in host and not bracketed):
        raise ValueError(f"must be an address, got {text!r}; write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"must have a port from 0 to 65535, got {text!r}; write HOST:PORT, for example 127.0.0.1:8080")
    return host, int(port)


def read_admin_address(text: str) -> tuple[str, int] | str:
    """Read ``host:port``, or the path of a UNIX socket after ``unix:``."""
    if not text.startswith("unix:"):
        return read_address(text)
    path = text.removeprefix("unix:")
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError(f"must have the path of a socket after unix:, got {text!r}; write unix:/run/harn/admin.sock")
    return path


MANIFEST = Option(
    name="config",
    aliases=("manifest",),
    env="HARN_ORCHESTRATOR_MANIFEST",
    default=DEFAULT_MANIFEST,
    read=read_text,
    metavar="PATH",
    help="The manifest.",
)
STATE_DIR = Option(
    name="state-dir",
    env="HARN_ORCHESTRATOR_STATE_DIR",
    default=DEFAULT_STATE_DIR,
    read=read_text,
    metavar="PATH",
    help="The directory of all durable state.",
)
STORE = Option(
    name="store",
    env="HARN_ORCHESTRATOR_STORE",
    read=read_text,
    metavar="URL",
    help="postgresql://... to keep events there instead of in the state directory; wins over orchestrator.store.",
)
OPTIONS: tuple[Option, ...] = (
    MANIFEST,
    STATE_DIR,
    STORE,
    Option(
        name="bind",
        aliases=("listen",),
        env="HARN_ORCHESTRATOR_LISTEN",
        default="127.0.0.1:8080",
        read=read_address,
        metavar="HOST:PORT",
        help="Where to listen; port 0 picks a free one.",
    ),
    Option(
        name="admin-bind",
        env="HARN_ORCHESTRATOR_ADMIN_BIND",
        read=read_admin_address,
        metavar="HOST:PORT|unix:PATH",
        help="Where admin, metrics and console are served, and nowhere else; by default where triggers are.",
    ),
    Option(
        name="cert",
        env="HARN_ORCHESTRATOR_CERT",
        read=read_text,
        metavar="PATH",
        help="Certificate chain (PEM) for TLS; needs --key.",
    ),
    Option(
        name="key",
        env="HARN_ORCHESTRATOR_KEY",
        read=read_text,
        metavar="PATH",
        help="Private key (PEM) for TLS; needs --cert.",
    ),
    Option(
        name="shutdown-timeout",
        env="HARN_ORCHESTRATOR_SHUTDOWN_TIMEOUT",
        default="30",
        read=read_grace,
        metavar="SECONDS",
        help="How long a shutdown may take in all.",
    ),
    Option(
        name="drain-max-items",
        env="HARN_ORCHESTRATOR_DRAIN_MAX_ITEMS",
        read=read_count,
        metavar="N",
        help="How many queued deliveries a shutdown still runs; wins over orchestrator.drain.max_items.",
    ),
    Option(
        name="drain-deadline",
        env="HARN_ORCHESTRATOR_DRAIN_DEADLINE",
        read=read_seconds,
        metavar="SECONDS",
        help="How long a shutdown runs queued deliveries; wins over orchestrator.drain.deadline_seconds.",
    ),
    Option(
        name="pump-max-outstanding",
        env="HARN_ORCHESTRATOR_PUMP_MAX_OUTSTANDING",
        read=read_positive,
        metavar="N",
        help="How many handlers run at the same time; wins over orchestrator.pumps.max_outstanding.",
    ),
    Option(
        name="watch",
        env="HARN_ORCHESTRATOR_WATCH",
        default="false",
        read=read_switch,
        metavar=None,
        help="Reload when the manifest, or a file that it needs, changes.",
    ),
    Option(
        name="log-format",
        env="HARN_ORCHESTRATOR_LOG_FORMAT",
        default="text",
        read=one_of(LOG_FORMATS),
        metavar="|".join(LOG_FORMATS),
        help="Format of log records; json also goes to logs/orchestrator.log in the state directory.",
    ),
    Option(
        name="log-level",
        env="HARN_ORCHESTRATOR_LOG_LEVEL",
        read=one_of(LEVELS),
        metavar="|".join(LEVELS),
        help="Minimum log level; wins over orchestrator.log_level.",
    ),
    Option(
        name="vm",
        env="HARN_ORCHESTRATOR_VM",
        default="child",
        read=one_of(VMS),
        metavar="|".join(VMS),
        help="Where handlers run: in a child process, or (for debugging) in the server's own.",
    ),
    Option(
        name="role",
        env="HARN_ORCHESTRATOR_ROLE",
        default="single-tenant",
        read=read_role,
        metavar="|".join(ROLES),
        help="Whom it serves; named in the state file and in records. multi-tenant is refused: it is not there yet.",
    ),
    Option(
        name="last-good",
        env="HARN_ORCHESTRATOR_LAST_GOOD",
        default="false",
        read=read_switch,
        metavar=None,
        help="Start from the last good generation if the manifest is invalid.",
    ),
    Option(
        name="no-console",
        env="HARN_ORCHESTRATOR_NO_CONSOLE",
        default="false",
        read=read_switch,
        metavar=None,
        help="Serve no web console at /console/.",
    ),
)


@frozen(kw_only=True)
class ServeOptions:
    """
    The options that ``serve`` was given. Paths are absolute; ``manifest_name`` is the manifest's as given, for
    messages.

    :ivar admin_bind: host and port, or the path of a UNIX socket; None where admin is on the address of triggers.
    :ivar store: the URL of a PostgreSQL store, which may have a password in it; None leaves it to the manifest.
    :ivar shutdown_timeout: seconds, at least 1.
    :ivar drain_max_items: None leaves it to the manifest; so do ``drain_deadline`` (seconds), ``pump_max_outstanding``
        (at least 1) and ``log_level`` (`LEVELS`).
    :ivar log_format: `LOG_FORMATS`; ``vm``: `VMS`; ``role``: `ROLES`, as the state file and the records of the server's
        life name it.
    :ivar last_good: at a start: serve the last live generation when the files cannot be served.
    :ivar no_console: there is no web console.
    """

    manifest: str
    manifest_name: str
    state_dir: str
    host: str
    port: int
    store: str | None = field(default=None, repr=False)
    admin_bind: tuple[str, int] | str | None = None
    cert: str | None = None
    key: str | None = None
    shutdown_timeout: float = 30.0
    drain_max_items: int | None = None
    drain_deadline: float | None = None
    pump_max_outstanding: int | None = None
    watch: bool = False
    log_format: str = "text"
    log_level: str | None = None
    vm: str = "child"
    role: str = "single-tenant"
    last_good: bool = False
    no_console: bool = False

    @classmethod
    def from_values(
        cls, given: Mapping[str, str | bool | None], environ: Mapping[str, str], directory: str | None = None
    ) -> ServeOptions:
        """
        Put together what the flags, the environment and the defaults say.

        :param given: by `Option.key`: the text after the flag, True for a switch, None or absent when it was not used.
        :param directory: what relative paths are relative to; the working directory if None.
        :raises ValueError: with a message that names the flag or the variable, and says what is wanted.
        """
        values = {option.key: value_of(option, given, environ) for option in OPTIONS}
        cert, key = values["cert"], values["key"]
        if cert is not None and key is None:
            raise ValueError("--cert requires --key: give both, or neither")
        if key is not None and cert is None:
            raise ValueError("--key requires --cert: give both, or neither")
        base = os.getcwd() if directory is None else directory
        host, port = values["bind"]
        admin = values["admin_bind"]
        return cls(
            manifest=absolute(base, values["config"]),
            manifest_name=values["config"],
            state_dir=absolute(base, values["state_dir"]),
            host=host,
            port=port,
            store=values["store"],
            admin_bind=absolute(base, admin) if isinstance(admin, str) else admin,
            cert=None if cert is None else absolute(base, cert),
            key=None if key is None else absolute(base, key),
            shutdown_timeout=values["shutdown_timeout"],
            drain_max_items=values["drain_max_items"],
            drain_deadline=values["drain_deadline"],
            pump_max_outstanding=values["pump_max_outstanding"],
            watch=values["watch"],
            log_format=values["log_format"],
            log_level=values["log_level"],
            vm=values["vm"],
            role=values["role"],
            last_good=values["last_good"],
            no_console=values["no_console"],
        )


def value_of(option: Option, given: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> Any:
    """
    Return the value of one option, None if it has none.

    :raises ValueError: with a message that names the flag or the variable.
    """
    text = given.get(option.key)
    if isinstance(text, bool):
        text = "true" if text else None
    place = f"--{option.name}"
    if text is None and environ.get(option.env):
        text, place = environ[option.env], option.env
    if text is None:
        text = option.default
    if text is None:
        return None
    try:
        return option.read(text)
    except ValueError as wrong:
        raise ValueError(f"{place}: {wrong}") from None


def absolute(base: str, path: str) -> str:
    """Make ``path`` absolute and plain; links in it stay links."""
    return os.path.normpath(os.path.join(base, os.path.expanduser(path)))
