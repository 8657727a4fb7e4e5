"""``[orchestrator]`` and its tables: every setting declared once, and their validation."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from harn.manifest.alerts import AlertSpec, AlertTables, SmtpSettings, check_mailable, check_smtp
from harn.manifest.diagnostics import Diagnostics, quote
from harn.manifest.fields import Choice, Duration, Flag, Integer, Number, Share, Text, Texts
from harn.manifest.tables import RESTART, Shape, Table
from harn.model.networks import fault_of_network
from harn.observability.log_limits import DEFAULT, LEVELS

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", re.ASCII)
_CONSOLE = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.ASCII)
_STORE = re.compile(r"postgres(ql)?://", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)
_YEARS = 10 * 366 * 86400


def _fault_of_origin(text: str) -> tuple[str, str] | None:
    if not text.strip() or text in ("*", "null") or _ORIGIN.fullmatch(text):
        return None
    return f"must be an origin, got {quote(text)}", "write scheme://host[:port] in lower case without a path, or *"


def _fault_of_host(text: str) -> tuple[str, str] | None:
    if _HOST.fullmatch(text):
        return None
    return f"must be the name or address of a host, got {quote(text)}", 'write it without port, "harn.example.org"'


def _fault_of_console(text: str) -> tuple[str, str] | None:
    if _CONSOLE.fullmatch(text):
        return None
    return f"must be the URL of the console, got {quote(text)}", 'write for example "https://harn.example.org/console"'


def _fault_of_store(text: str) -> tuple[str, str] | None:
    if not _STORE.match(text):
        return "must be a URL that begins with postgresql://", 'write for example "postgresql://harn@db/harn"'
    try:
        parts = urlsplit(text)
        has_password = parts.password is not None or "password" in dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        return "must be a URL of PostgreSQL", 'write for example "postgresql://harn@db/harn"'
    if has_password:
        return "must have no password in it", "name the secret that has it: ...?password_secret=postgres/password"
    return None


def fault_of_glob(text: str) -> tuple[str, str] | None:
    """Return the fault of a pattern of local modules, and a hint; None when it is valid."""
    if text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/"):
        return f"{quote(text)} leads out of the manifest's directory", 'write it relative, for example "rules/*.py"'
    if not text.endswith(".py"):
        return f"{quote(text)} does not end in .py", 'write for example "rules/*.py"'
    return None


class DrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of draining at shutdown."""

    max_items: Annotated[int, Integer("The most deliveries to finish.", 1)] = 1024
    deadline_seconds: Annotated[float, Number("The longest wait, in seconds.", 0, _YEARS)] = 30.0


class PumpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Concurrency."""

    max_outstanding: Annotated[int, Integer("Handlers that run at the same time.", 1, 100_000)] = 64


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Retention; unfinished deliveries are always kept.

    Ages are seconds; ``max_bytes`` None for no limit.
    """

    events: Annotated[float, Duration('Age at which finished deliveries are removed; "7d" by default.')] = 7 * 86400.0
    dead: Annotated[float, Duration('Age at which dead letters are removed; "30d" by default.')] = 30 * 86400.0
    max_bytes: Annotated[
        int | None, Integer("Size above which the oldest finished ones are removed; no limit by default.", 1)
    ] = None
    generations: Annotated[int, Integer("Adopted generations kept for history and rollback.", 2, 1000)] = 20


class ReloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Time limits of a reload, and automatic rollback.

    Times are seconds; ``revert_on_failures`` is from 0 to 1; None turns that, or ``confirm_within``, off.
    """

    drain_timeout: Annotated[float, Duration('How long a replaced version may drain; "5m" by default.')] = 300.0
    timeout: Annotated[float, Duration('How long each stage may take, at a start at least 5 s; "30s" by default.')] = (
        30.0
    )
    confirm_within: Annotated[
        float | None, Duration("Time to confirm a new generation, else it is rolled back; off by default.")
    ] = None
    revert_on_failures: Annotated[
        float | None,
        Share(
            "Share of failed attempts of new versions above which they are rolled back; off by default.", partial=True
        ),
    ] = None
    revert_min: Annotated[int, Integer("Attempts of new versions before the share counts.", 1)] = 20
    revert_for: Annotated[float, Duration('How long failures of new versions count; "2m" by default.')] = 120.0
    allow_split: Annotated[bool, Flag("Let `reload --here` reload one of several servers on a store alone.")] = False


class VmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreters that run handlers."""

    include: Annotated[
        tuple[str, ...], Texts("Local modules that imports do not show, as globs.", Text("", fault_of_glob))
    ] = ()


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Limits of admission; rates are off by default.

    Rates are requests a second; None turns one off.
    """

    max_pending_events: Annotated[int, Integer("Events that are not yet durable.", 1)] = 10_000
    max_pending_bytes: Annotated[
        int,
        Integer("Bytes of their bodies, and of deliveries that memory holds: these take up to half of it.", 1),
    ] = 256 * 1024 * 1024
    max_unverified_bytes: Annotated[
        int,
        Integer("Bytes of requests being read before their sender is verified; at least twice max_body_bytes.", 1),
    ] = 128 * 1024 * 1024
    max_connections: Annotated[int, Integer("Open connections; the limit of open files may allow less.", 1)] = 10_000
    global_rate: Annotated[float | None, Number("Requests a second in all.", positive=True)] = None
    rate: Annotated[float | None, Number("Requests a second of each trigger.", positive=True)] = None
    burst: Annotated[int | None, Integer("Requests that may come in one burst before a rate counts.", 1)] = None


class OrchestratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the server; they apply on reload too."""

    allow_empty: Annotated[bool, Flag("Accept a manifest without triggers.")] = False
    allowed_origins: Annotated[
        tuple[str, ...],
        Texts("Values of the Origin header to admit; empty, or *, for any.", Text("", _fault_of_origin)),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Texts(
            "Networks of proxies whose X-Forwarded-For says who the sender is, for allow_from of triggers.",
            Text("", fault_of_network),
        ),
    ] = ()
    admin_hosts: Annotated[
        tuple[str, ...],
        Texts(
            "Further names that requests to /admin, /metrics and /console may have as Host, or as their Origin.",
            Text("", _fault_of_host),
        ),
    ] = ()
    console_url: Annotated[
        str | None,
        Text("The URL at which operators open the console, for links in alerts; none by default.", _fault_of_console),
    ] = None
    max_body_bytes: Annotated[int, Integer("The biggest request body, in bytes.", 1, 2**31)] = 10_485_760
    store: Annotated[
        str | None,
        Text("postgresql://... to keep events there instead of in the state directory.", _fault_of_store),
        RESTART,
    ] = None
    recover: Annotated[
        str, Choice("What happens to unfinished deliveries after a restart.", ("auto", "manual")), RESTART
    ] = "auto"
    log_level: Annotated[str, Choice("Minimum log level.", LEVELS)] = DEFAULT
    drain: DrainSettings = DrainSettings()
    pumps: PumpSettings = PumpSettings()
    retention: RetentionSettings = RetentionSettings()
    reload: ReloadSettings = ReloadSettings()
    vm: VmSettings = VmSettings()
    admission: AdmissionSettings = AdmissionSettings()
    smtp: SmtpSettings = SmtpSettings()
    alerts: Annotated[
        tuple[AlertSpec, ...], AlertTables("Messages about any trigger when something is wrong with it.")
    ] = ()


ORCHESTRATOR = Shape.of(OrchestratorSettings)
_LATER = frozenset(("budget",))


def check_orchestrator(raw: Any, diagnostics: Diagnostics) -> OrchestratorSettings:
    """Check ``[orchestrator]`` (None when it is absent); an invalid value keeps its default."""
    if raw is None:
        return OrchestratorSettings()
    table = Table.of(raw, ("orchestrator",), diagnostics)
    if table is None:
        return OrchestratorSettings()
    for key in table.raw.keys() & _LATER:
        table.problem(key, "is not supported yet", "remove it")
    supported = {key: value for key, value in table.raw.items() if key not in _LATER}
    table = Table(supported, table.path, diagnostics).respelled(ORCHESTRATOR.spellings())
    settings = OrchestratorSettings(**table.values(ORCHESTRATOR))
    given = raw.get("admission")
    if settings.admission.burst is not None and not given.keys() & {"rate", "global_rate", "global-rate"}:
        path = ("orchestrator", "admission", "burst")
        diagnostics.add(path, "counts only with rate or global_rate", "set one of them, or remove burst")
    _check_revert(raw.get("reload"), diagnostics)
    check_smtp(settings.smtp, diagnostics)
    check_mailable(("orchestrator",), settings.alerts, settings.smtp, diagnostics)
    return msgspec.structs.replace(settings, allowed_origins=_origins(settings.allowed_origins, diagnostics))


def _check_revert(given: Any, diagnostics: Diagnostics) -> None:
    """Refuse settings of the failure limit where no limit is set."""
    if not isinstance(given, dict) or given.keys() & {"revert_on_failures", "revert-on-failures"}:
        return
    for key in ("revert_min", "revert-min", "revert_for", "revert-for"):
        if key in given:
            path = ("orchestrator", "reload", key)
            diagnostics.add(path, "counts only with revert_on_failures", f"set that, or remove {key}")


def _origins(given: tuple[str, ...], diagnostics: Diagnostics) -> tuple[str, ...]:
    """
    Drop blanks; ``*`` is any, and so is an empty list. A list of blanks alone is a mistake that must not admit
    everyone.
    """
    named = tuple(origin for origin in given if origin.strip())
    if given and not named:
        diagnostics.add(("orchestrator", "allowed_origins"), "names no origin", "remove the key to admit any")
    return () if "*" in named else named
