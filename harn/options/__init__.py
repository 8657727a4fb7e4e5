"""
The options of ``serve``, defined once for the command line, the environment and twistd.

A flag wins over its environment variable, which wins over the default. What the manifest may also say (drain, pumps,
log level) stays None here if it is not given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from msgspec import Struct

from harn.observability.log_limits import LEVELS
from harn.options.readers import (
    ROLES,
    Reader,
    one_of,
    read_address,
    read_admin_address,
    read_count,
    read_grace,
    read_positive,
    read_role,
    read_seconds,
    read_switch,
    read_text,
    read_workers,
)

DEFAULT_MANIFEST = "harn.toml"
DEFAULT_STATE_DIR = ".harn/orchestrator"
LOG_FORMATS = ("text", "pretty", "json")
VMS = ("child", "inline")


class Option(Struct, frozen=True, kw_only=True):
    """
    One option.

    :ivar name: the flag without its dashes.
    :ivar aliases: further names of the same flag.
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
        name="workers",
        env="HARN_ORCHESTRATOR_WORKERS",
        default="1",
        read=read_workers,
        metavar="N",
        help="How many server processes share the port; more than one need a PostgreSQL store.",
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


_AS_READ = (
    *("store", "shutdown_timeout", "drain_max_items", "drain_deadline", "pump_max_outstanding", "workers", "watch"),
    *("log_format", "log_level", "vm", "role", "last_good", "no_console"),
)
"""Options whose values are those of `ServeOptions` of the same names."""


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
    :ivar log_format: `LOG_FORMATS`.
    :ivar vm: `VMS`.
    :ivar role: `ROLES`, as the state file and the records of the server's life name it.
    :ivar last_good: at a start: serve the last live generation when the files cannot be served.
    :ivar no_console: there is no web console.
    :ivar workers: how many server processes share the port, 1 to 64.
    :ivar shared_dir: of one of several workers: the state directory that they were started with; None of a lone server.
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
    workers: int = 1
    shared_dir: str | None = None

    @property
    def worker_name(self) -> str | None:
        """Return the name of one of several workers; None of a lone server."""
        return None if self.shared_dir is None else os.path.basename(self.state_dir)

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
            admin_bind=absolute(base, admin) if isinstance(admin, str) else admin,
            cert=None if cert is None else absolute(base, cert),
            key=None if key is None else absolute(base, key),
            **{name: values[name] for name in _AS_READ},
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
