"""Checks of the service: the server, its generation, its triggers, its address and certificate, remote handlers."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import UNSET

from harn.cli.doctor.model import Row, failure, format_age, ok, skipped, warning
from harn.cli.doctor.subject import Serving, Subject, unverified
from harn.cli.inspect import NeverRan, inspect_offline
from harn.errors import HarnError, ListenerUnusable
from harn.listener.endpoint import Bind
from harn.listener.tls import CertificateFiles, TlsContext
from harn.manifest.model import TriggerSpec
from harn.orchestrator.operations import TriggerInfo
from harn.reload.results import LiveGenerationInfo

SERVER, GENERATION, LISTENER, CERTIFICATE = "server", "generation", "listener", "TLS certificate"


def check_server(subject: Subject) -> Iterator[Row]:
    """Check that the server answers and is ready."""
    if subject.pid is None:
        yield skipped(SERVER, f"none runs on {subject.location.state_dir_name}")
    else:
        yield row_of_server(subject.serving)
        if subject.serving.generation is not None:
            yield from rows_of_generation(subject.serving.generation)


def row_of_server(serving: Serving) -> Row:
    """Return the finding about its answers."""
    if serving.readiness is None:
        hint = "look at its log; if it hangs, end it (kill, then kill -9) and start it again: nothing accepted is lost"
        return failure(SERVER, serving.problem or f"no answer from {serving.url}", hint)
    status, text = serving.readiness
    if status != 200:
        hint = "wait where it starts or drains; else look at its log for the reason"
        return failure(SERVER, f"{serving.url} is not ready: {status} {text}", hint)
    if serving.problem:
        hint = "run this as the server's user, or with the credentials that the server has"
        return warning(SERVER, f"{serving.url} is ready, but cannot be asked: {serving.problem}", hint)
    return ok(SERVER, f"{serving.url} is ready")


def rows_of_generation(live: LiveGenerationInfo) -> Iterator[Row]:
    """Return the finding about the live generation, and of reloads since."""
    said = f"{live.generation}, since {live.since if live.since is not UNSET else 'unknown'}"
    if live.last_failed is not None:
        failed = live.last_failed
        hint = "correct the files, then: harn orchestrator reload"
        yield warning(GENERATION, f"{said}; the last reload failed: {failed.error}", hint)
    elif live.pinned:
        hint = "correct the files, then: harn orchestrator reload"
        yield warning(GENERATION, f"{said}, pinned after a rollback: the files are not adopted", hint)
    elif live.drift:
        names = () if live.drifted_files is UNSET else live.drifted_files
        hint = "`harn orchestrator plan` shows what would change, `harn orchestrator reload` adopts it"
        yield warning(GENERATION, f"{said}; files differ from it: {', '.join(names[:3]) or 'some'}", hint)
    else:
        yield ok(GENERATION, said)


def check_triggers(subject: Subject) -> Iterator[Row]:
    """Check each trigger of the manifest, and of the server."""
    specs = {} if subject.manifest is None else subject.manifest.triggers
    yield from rows_of_triggers(specs, read_triggers(subject), is_running=subject.pid is not None)


def read_triggers(subject: Subject) -> Mapping[str, TriggerInfo]:
    """Return by id what the server says of each trigger, or else the last one's state file and store."""
    found: Sequence[TriggerInfo] = ()
    if subject.serving.inspection is not None:
        found = subject.serving.inspection.triggers
    else:
        try:
            found = inspect_offline(subject.location).triggers
        except (NeverRan, HarnError):
            found = ()
    newest: dict[str, TriggerInfo] = {}
    for each in found:
        if each.id not in newest or each.version > newest[each.id].version:
            newest[each.id] = each
    return newest


def rows_of_triggers(
    specs: Mapping[str, TriggerSpec], served: Mapping[str, TriggerInfo], *, is_running: bool
) -> Iterator[Row]:
    """
    Return a row for each trigger of the manifest and of the server.

    :param served: the triggers of the server, or of the last server that ran.
    :param is_running: False if no server runs.
    """
    for trigger_id, spec in specs.items():
        what = f"kind={spec.kind} provider={spec.provider} handler={spec.handler_kind}"
        info = served.get(trigger_id)
        if info is not None:
            yield row_of_trigger(what, info)
        elif is_running:
            yield warning(f"trigger:{trigger_id}", f"{what} state=not served", "harn orchestrator reload adopts it")
        else:
            yield ok(f"trigger:{trigger_id}", f"{what} state=not served yet")
    for trigger_id in served.keys() - specs.keys() if specs and is_running else ():
        info = served[trigger_id]
        if info.state == "active":
            said = f"kind={info.kind} provider={info.provider} state={info.state}, and no longer in the manifest"
            yield warning(f"trigger:{trigger_id}", said, "harn orchestrator reload removes it, or put it back")


def row_of_trigger(what: str, info: TriggerInfo) -> Row:
    """Return the finding about one trigger; ``what`` describes it."""
    said = (
        f"{what} state={info.state} version={info.version} received={info.received} dispatched={info.dispatched}"
        f" failed={info.failed} dlq={info.dlq} in_flight={info.in_flight} accepted={info.accepted} dead={info.dead}"
    )
    label = f"trigger:{info.id}"
    if info.circuit in ("open", "half_open"):
        hint = "its destination fails; `harn orchestrator circuits` shows when it is tried again, and closes it"
        return warning(label, f"{said} circuit={info.circuit}", hint)
    if info.paused:
        return warning(label, f"{said} paused", f"`harn orchestrator resume {info.id}` begins what it kept")
    if info.dead:
        return warning(label, said, f"`harn orchestrator dlq --trigger {info.id}` shows its dead letters")
    return ok(label, said)


def check_listener(subject: Subject) -> Iterator[Row]:
    """Check that the address is the server's, or free for one that is started here."""
    if subject.pid is not None:
        bind = (subject.state or {}).get("bind") or "an unknown address"
        if subject.serving.readiness is not None:
            yield ok(LISTENER, f"{bind} is that of the server (pid {subject.pid})")
        else:
            yield failure(LISTENER, f"{bind} does not answer", "see the row of the server; look at its log")
        return
    asked = Bind(subject.options.host, subject.options.port)
    yield row_of_address(asked, errno_of_bind(asked))


def errno_of_bind(asked: Bind) -> int | None:
    """Return the system's error for a try to bind an address; None where it can be bound."""
    host = {"localhost": "127.0.0.1"}.get(asked.host, asked.host)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, asked.port))
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return None


def row_of_address(asked: Bind, code: int | None) -> Row:
    """Return the finding about an address, and the error of a try to bind it."""
    if code is None:
        return ok(LISTENER, f"{asked} is free")
    if code == errno.EADDRINUSE:
        hint = f"find who has it (ss -ltnp 'sport = :{asked.port}') and end it, or choose another with --bind"
        return failure(LISTENER, f"{asked} is in use by another program", hint)
    if code in (errno.EACCES, errno.EPERM):
        return failure(LISTENER, f"{asked} is not allowed to this user", "choose a port above 1023 with --bind")
    return failure(LISTENER, f"{asked.host} is not an address of this machine", "choose another with --bind")


EXPIRES_SOON = 21 * 86400.0
"""Seconds before its end at which a certificate is worth a warning."""


def check_certificate(subject: Subject) -> Iterator[Row]:
    """Check the certificate that the server shows, or that a server would."""
    cert, key = subject.options.cert, subject.options.key
    url = (subject.state or {}).get("listener_url") if subject.pid is not None else None
    if isinstance(url, str) and url.startswith("https:"):
        expires_at = expiry_of_server(url)
        if expires_at is None:
            yield failure(CERTIFICATE, f"{url} shows none", "look at the server's log")
        else:
            yield row_of_certificate(url, expires_at, subject.now)
    elif cert is None or key is None:
        yield skipped(CERTIFICATE, "no TLS: neither --cert nor --key")
    else:
        try:
            expires_at = TlsContext(CertificateFiles(cert, key).load()).expires_at()
        except ListenerUnusable as error:
            yield failure(CERTIFICATE, str(error), "give --cert and --key of one pair, readable for the server's user")
        else:
            yield row_of_certificate(cert, expires_at or 0.0, subject.now)


def expiry_of_server(url: str) -> float | None:
    """Return when the certificate that a server shows ends (seconds, Unix); None where it shows none."""
    from cryptography.x509 import load_der_x509_certificate

    parts = urlsplit(url)
    try:
        connection = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=5.0)
        with connection, unverified().wrap_socket(connection) as wrapped:
            shown = wrapped.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError):
        return None
    return None if not shown else load_der_x509_certificate(shown).not_valid_after_utc.timestamp()


def row_of_certificate(shown_by: str, expires_at: float, now: float) -> Row:
    """Return the finding about a certificate; times are seconds, Unix."""
    left = expires_at - now
    hint = "renew it; the next reload shows the new one (`harn orchestrator reload`, or --watch)"
    if left <= 0:
        return failure(CERTIFICATE, f"that of {shown_by} ended {format_age(-left)} ago", hint)
    said = f"that of {shown_by} ends in {format_age(left)}"
    return warning(CERTIFICATE, said, hint) if left < EXPIRES_SOON else ok(CERTIFICATE, said)


REACHED_WITHIN = 3.0
"""Seconds that a connection may take."""
MOST_REACHED = 20


def check_destinations(subject: Subject) -> Iterator[Row]:
    """Check that other machines that handle events take connections, unless the network is not to be used."""
    specs: Sequence[TriggerSpec] = () if subject.manifest is None else tuple(subject.manifest.triggers.values())
    targets = list(dict.fromkeys(address for spec in specs for address in [address_of(spec)] if address is not None))
    for scheme, host, port in targets[:MOST_REACHED]:
        label = f"destination:{scheme}://{Bind(host, port)}"
        if subject.network:
            yield row_of_target(label, error_of_connection(host, port))
        else:
            yield skipped(label, "--no-network")
    if len(targets) > MOST_REACHED:
        yield skipped("destinations", f"{len(targets) - MOST_REACHED} more were not tried")


def address_of(spec: TriggerSpec) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a handler on another machine; None for any other."""
    if spec.target_uri is None:
        return None
    parts = urlsplit(spec.target_uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    usual = 443 if spec.handler_kind in ("https", "a2a") else 80 if spec.handler_kind == "http" else None
    number = port or usual
    return None if not host or number is None else (spec.handler_kind, host, number)


def error_of_connection(host: str, port: int) -> str:
    """Return the error of a try to connect; empty when there is none."""
    try:
        socket.create_connection((host, port), timeout=REACHED_WITHIN).close()
    except (OSError, UnicodeError) as error:
        reason: Any = getattr(error, "strerror", None)
        return str(reason or error or type(error).__name__)
    return ""


def row_of_target(label: str, error: str) -> Row:
    """Return the finding about a destination, and of the error of a connection to it."""
    if error:
        hint = "its deliveries wait or are tried again; look at that machine, its name and the firewall between"
        return warning(label, f"no connection: {error}", hint)
    return ok(label, "takes connections")
