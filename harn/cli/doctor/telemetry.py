"""Checks of what the environment asks for: the extras that it needs, and the collector of traces and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from msgspec import Struct

from harn.cli.doctor.model import Row, failure, ok, skipped, warning
from harn.cli.doctor.serving import error_of_connection
from harn.cli.doctor.subject import Subject
from harn.errors import HarnError
from harn.orchestrator.stores import offline_address
from harn.traces.settings import ASKING, DISABLED, TelemetrySettings, read_settings, shown_url

EXTRAS, TRACES = "extras", "traces"
PROVIDERS = "HARN_SECRET_PROVIDERS"


class NeededExtra(Struct, frozen=True, kw_only=True):
    """
    An extra of the package that the surroundings ask for.

    :ivar name: for example ``otel``.
    :ivar why: what asks for it.
    :ivar is_vital: without it the server does not start.
    """

    name: str
    why: str
    is_installed: bool
    is_vital: bool = True


def check_extras(subject: Subject) -> Iterator[Row]:
    """Check that the extras are installed that the environment, the store and the manifest ask for."""
    yield from rows_of_extras(list(needed_extras(subject)))


def needed_extras(subject: Subject) -> Iterator[NeededExtra]:
    """Yield the extras that are asked for."""
    try:
        address = offline_address(subject.state_dir, subject.environ)
    except (HarnError, OSError):
        address = None  # the row of the event log says what is wrong
    if address is not None:
        why = f"the store is on PostgreSQL ({address.location})"
        yield NeededExtra(name="postgres", why=why, is_installed=find_spec("psycopg") is not None)
    if "keyring" in [each.strip() for each in subject.environ.get(PROVIDERS, "").split(",")]:
        yield NeededExtra(name="keyring", why=f"{PROVIDERS} names it", is_installed=find_spec("keyring") is not None)
    settings = read_settings(subject.environ)
    if settings is not None and (settings.traces_url or settings.metrics_url):
        from harn.traces.otlp import is_installed

        asked = ", ".join(name for name in ASKING if subject.environ.get(name))
        why = f"{asked} asks for traces or metrics"
        yield NeededExtra(name="otel", why=why, is_installed=is_installed(), is_vital=False)


def rows_of_extras(needed: Iterable[NeededExtra]) -> Iterator[Row]:
    """Return the findings about the extras that are asked for."""
    there = [each.name for each in needed if each.is_installed]
    for each in needed:
        if each.is_installed:
            continue
        said, hint = f"{each.why}, and harn[{each.name}] is not installed", f"pip install 'harn[{each.name}]'"
        if each.is_vital:
            yield failure(EXTRAS, said, hint)
        else:
            yield warning(EXTRAS, f"{said}: none are sent", f"{hint}, or set {DISABLED}=true")
    if there:
        yield ok(EXTRAS, f"installed, as asked for: {', '.join(there)}")
    elif not needed:
        yield skipped(EXTRAS, "none is asked for")


def check_traces(subject: Subject) -> Iterator[Row]:
    """Check the settings of traces and metrics, and that their collector takes connections."""
    settings = read_settings(subject.environ)
    if settings is None:
        yield skipped(TRACES, f"not asked for: {ASKING[0]} is not set")
        return
    yield from rows_of_settings(settings)
    urls = dict.fromkeys(url for url in (settings.traces_url, settings.metrics_url) if url is not None)
    collectors = dict.fromkeys(urlsplit(url)._replace(path="", query="").geturl() for url in urls)
    for url in collectors:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if subject.network:
            yield row_of_collector(url, error_of_connection(parts.hostname or "", port))
        else:
            yield skipped(TRACES, f"{shown_url(url)} was not tried: --no-network")


def rows_of_settings(settings: TelemetrySettings) -> Iterator[Row]:
    """Return a warning for each variable that is malformed."""
    for each in settings.warnings:
        yield warning(TRACES, each, "correct it in the server's environment, then restart")


def row_of_collector(url: str, error: str) -> Row:
    """Return the finding about a collector, and of the error of a connection to it."""
    if error:
        hint = "deliveries do not wait for it; look at the collector, its name and the firewall between"
        return warning(TRACES, f"{shown_url(url)}: no connection: {error}", hint)
    return ok(TRACES, f"{shown_url(url)} takes connections")
