"""
The settings of traces: environment variables, those of OpenTelemetry first, then harn's own names for some. Pure.

What is malformed is a warning, and the default holds: these variables are often set for a whole cluster.

Source: OpenTelemetry, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen
from msgspec import Struct

from harn.model.event_trace import ALWAYS_OFF, ALWAYS_ON, RATIO, Sampler

DISABLED = "OTEL_SDK_DISABLED"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OWN_ENDPOINT = "HARN_OTEL_ENDPOINT"
OWN_HEADERS = "HARN_OTEL_HEADERS"
SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER_ARG"
SERVICE_NAME = "OTEL_SERVICE_NAME"
OWN_SERVICE_NAME = "HARN_OTEL_SERVICE_NAME"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
PROCESSOR = "HARN_OTEL_SPAN_PROCESSOR"
DEFAULT_ENDPOINT = "http://localhost:4318"
DEFAULT_SERVICE = "harn-orchestrator"
HTTP = "http/protobuf"
TRACES, METRICS = "traces", "metrics"

ASKING = (
    ENDPOINT,
    OWN_ENDPOINT,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
)
"""While none of these is set, nothing is exported."""

SAMPLERS = {
    "always_on": Sampler(ALWAYS_ON, follows_sender=False),
    "always_off": Sampler(ALWAYS_OFF, follows_sender=False),
    "traceidratio": Sampler(RATIO, follows_sender=False),
    "parentbased_always_on": Sampler(ALWAYS_ON),
    "parentbased_always_off": Sampler(ALWAYS_OFF),
    "parentbased_traceidratio": Sampler(RATIO),
}
_BETWEEN = re.compile("[,;\n]")
_COMPRESSIONS = ("none", "gzip", "deflate")


class Batching(Struct, frozen=True, kw_only=True):
    """
    Bounds of what waits to be sent.

    :ivar most_waiting: more are dropped.
    :ivar batch: the most in one request.
    :ivar delay: seconds until fewer are sent.
    """

    most_waiting: int = 8192
    batch: int = 512
    delay: float = 5.0


@frozen(kw_only=True)
class TelemetrySettings:
    """
    The signals that are exported, and their targets.

    :ivar traces_url: the whole URL to which spans are posted; None for no traces. So is ``metrics_url``.
    :ivar headers: of each request, besides those that ``OTEL_EXPORTER_OTLP_HEADERS`` has, which the exporter reads.
    :ivar service_name: None where ``OTEL_RESOURCE_ATTRIBUTES`` has one, which the SDK reads.
    :ivar interval: seconds between two exports of the metrics.
    :ivar warnings: what was malformed, for people; without secrets.
    """

    traces_url: str | None
    metrics_url: str | None
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    service_name: str | None = DEFAULT_SERVICE
    sampler: Sampler = field(factory=Sampler)
    batching: Batching = field(factory=Batching)
    interval: float = 60.0
    warnings: tuple[str, ...] = ()


def read_settings(environ: Mapping[str, str]) -> TelemetrySettings | None:
    """Return the settings; None when nothing is asked for, as with most servers."""
    if not any(map(environ.get, ASKING)) or environ.get(DISABLED, "").strip().lower() == "true":
        return None
    reader = _Reader(environ)
    reader.check_exporters()
    return TelemetrySettings(
        traces_url=reader.url(TRACES),
        metrics_url=reader.url(METRICS),
        headers=reader.headers(),
        service_name=reader.service_name(),
        sampler=reader.sampler(),
        batching=reader.batching(),
        interval=reader.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000.0,
        warnings=tuple(reader.warnings),
    )


def shown_url(url: str) -> str:
    """Return a URL without the credentials that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


class _Reader:
    """Reads the environment, and collects what is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.warnings: list[str] = []

    def _text(self, *names: str) -> tuple[str, str]:
        """Return the first of these variables that is set, and its name; both empty for none."""
        for name in names:
            value = self._environ.get(name, "").strip()
            if value:
                return value, name
        return "", ""

    def _warn(self, name: str, message: str) -> None:
        self.warnings.append(f"{name}: {message}")

    def url(self, signal: str) -> str | None:
        """Return the URL of a signal; None where it is not wanted, or cannot be sent."""
        upper = signal.upper()
        exporter, name = self._text(f"OTEL_{upper}_EXPORTER")
        wanted = {each.strip() for each in exporter.split(",")} if exporter else set()
        if wanted and "otlp" not in wanted:
            if wanted != {"none"}:
                self._warn(name, f"must be otlp or none, got {exporter!r}; no {signal} are exported")
            return None
        whole, name = self._text(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT")
        if not whole:
            base, name = self._text(ENDPOINT, OWN_ENDPOINT)
            if not base and not wanted:
                return None
            base = (base or DEFAULT_ENDPOINT).rstrip("/").removesuffix("/v1/traces")
            whole = f"{base}/v1/{signal}"
        return whole if self._speaks_http(signal) and self._is_url(whole, name, signal) else None

    def _speaks_http(self, signal: str) -> bool:
        protocol, name = self._text(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol and protocol != HTTP:
            hint = f"set it to {HTTP}, and the endpoint to the collector's port for HTTP, usually 4318"
            self._warn(name, f"must be {HTTP}, got {protocol!r}; no {signal} are exported; {hint}")
            return False
        return True

    def _is_url(self, text: str, name: str, signal: str) -> bool:
        try:
            parts: SplitResult | None = urlsplit(text)
            valid = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            got = "one with credentials" if "@" in text else repr(text)
            self._warn(name, f"must be a URL such as {DEFAULT_ENDPOINT}, got {got}; no {signal} are exported")
        return valid

    def headers(self) -> dict[str, str]:
        """Return harn's own headers: ``name=value``, divided by commas, semicolons or line ends."""
        found: dict[str, str] = {}
        for number, entry in enumerate(_BETWEEN.split(self._environ.get(OWN_HEADERS, "")), 1):
            name, equals, value = entry.strip().partition("=")
            if name.strip() and equals:
                found[name.strip().lower()] = value.strip()
            elif entry.strip():
                self._warn(OWN_HEADERS, f"entry {number} must be name=value; it is left out")
        return found

    def check_exporters(self) -> None:
        """Check the variables that the SDK's exporters read themselves, and whose mistakes they pass over."""
        for signal in ("", "TRACES_", "METRICS_"):
            headers = f"OTEL_EXPORTER_OTLP_{signal}HEADERS"
            for number, entry in enumerate(self._text(headers)[0].split(","), 1):
                if entry.strip() and not re.match(r"\s*[^=\s]+\s*=", entry):
                    self._warn(headers, f"entry {number} must be name=value; it is left out")
            compression, name = self._text(f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION")
            if compression and compression.lower() not in _COMPRESSIONS:
                self._warn(name, f"must be one of {', '.join(_COMPRESSIONS)}, got {compression!r}; using none")
            timeout, name = self._text(f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT")
            if timeout and not re.fullmatch(r"[0-9]+(\.[0-9]+)?", timeout, re.ASCII):
                self._warn(name, f"must be seconds, got {timeout!r}; using 10")

    def service_name(self) -> str | None:
        """Return the name of the service."""
        name, _ = self._text(SERVICE_NAME)
        if not name and "service.name=" in self._environ.get(RESOURCE, "").replace(" ", ""):
            return None
        return name or self._text(OWN_SERVICE_NAME)[0] or DEFAULT_SERVICE

    def sampler(self) -> Sampler:
        """Return the sampler."""
        name, variable = self._text(SAMPLER)
        sampler = SAMPLERS.get(name.lower() or "parentbased_always_on")
        if sampler is None:
            self._warn(variable, f"must be one of {', '.join(SAMPLERS)}, got {name!r}; using parentbased_always_on")
            return Sampler()
        if sampler.name != RATIO:
            return sampler
        text, _ = self._text(SAMPLER_ARGUMENT)
        try:
            ratio = float(text or "1")
        except ValueError:
            ratio = -1.0
        if not 0.0 <= ratio <= 1.0:
            self._warn(SAMPLER_ARGUMENT, f"must be a number from 0 to 1, got {text!r}; using 1")
            ratio = 1.0
        return Sampler(RATIO, ratio, sampler.follows_sender)

    def batching(self) -> Batching:
        """Return the bounds of spans that wait."""
        most = self.number("OTEL_BSP_MAX_QUEUE_SIZE", Batching().most_waiting)
        batch = min(most, self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", Batching().batch))
        delay = self.number("OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000.0
        processor, name = self._text(PROCESSOR)
        if processor not in ("", "batch", "simple"):
            self._warn(name, f"must be batch or simple, got {processor!r}; using batch")
        return Batching(most_waiting=most, batch=batch, delay=0.0 if processor == "simple" else delay)

    def number(self, name: str, default: int) -> int:
        """Return a number of 1 or more."""
        text, _ = self._text(name)
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text):
            return int(text)
        self._warn(name, f"must be a whole number of 1 or more, got {text!r}; using {default}")
        return default
