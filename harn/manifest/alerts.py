"""Alerts: ``[[triggers.alerts]]``, ``[[orchestrator.alerts]]``, and the mail server that sends some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from harn.manifest.diagnostics import Diagnostics, KeyPath, describe, quote
from harn.manifest.fields import Choice, Duration, Integer, Text
from harn.manifest.interfaces import JsonSchema
from harn.manifest.tables import Shape, Table
from harn.model.quantities import format_duration
from harn.model.references import fault_of_secret

DEAD_LETTER, CIRCUIT_OPEN, RELOAD_FAILED, SILENT, LATE = (
    "dead_letter",
    "circuit_open",
    "reload_failed",
    "silent",
    "late",
)
COUNTED = (DEAD_LETTER, CIRCUIT_OPEN, RELOAD_FAILED)
"""Kinds of alert that begin when something has happened ``threshold`` times."""
SLACK, WEBHOOK, EMAIL = "slack", "webhook", "email"
STARTTLS, TLS, PLAIN = "starttls", "tls", "none"
PORTS = {STARTTLS: 587, TLS: 465, PLAIN: 25}
"""The usual port of a mail server, by how the connection is encrypted."""

_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_MOST = 1000


def fault_of_url(text: str) -> str | None:
    """Return why ``text`` is not the URL of a receiver; None when it is. Does not quote it."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return "must consist of printable ASCII characters without spaces"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "must be a URL such as https://host/path"
    if parts.scheme not in ("http", "https"):
        return "must begin with https:// or http://"
    if not host or port == 0:
        return "must name a host, and a port other than 0 if any"
    return "must not hold a user or a password" if "@" in parts.netloc else None


def fault_of_mailbox(text: str) -> tuple[str, str] | None:
    """Return the fault of a mail address, and a hint; None when it is valid."""
    if len(text) <= 254 and _MAILBOX.fullmatch(text):
        return None
    return f"must be one mail address, got {quote(text)}", 'write for example "ops@example.com"'


class AlertSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    One alert. ``within`` and ``every`` are seconds; of ``url_secret`` and ``address`` one is set.
    """

    on: Annotated[str, Choice("The trouble that it reports.", (*COUNTED, SILENT, LATE))]
    to: Annotated[str, Choice("Where its messages go.", (SLACK, WEBHOOK, EMAIL))]
    url_secret: Annotated[
        str | None, Text("The secret that holds the URL, as namespace/name; for slack and webhook.", fault_of_secret)
    ] = None
    address: Annotated[
        str | None, Text("The mail address; for email. For webhook: the URL, where nothing in it is secret.")
    ] = None
    signing_secret: Annotated[
        str | None, Text("The secret that signs messages as Standard Webhooks; for webhook.", fault_of_secret)
    ] = None
    threshold: Annotated[
        int, Integer("How many times within the time; for dead_letter, circuit_open and reload_failed.", 1, _MOST)
    ] = 1
    within: Annotated[
        float, Duration("The time in which these are counted; how long silence or lateness may last.", low=1.0)
    ] = 600.0
    every: Annotated[float, Duration("At most one message in this time, apart from the all-clear.", low=1.0)] = 3600.0

    @property
    def target(self) -> str:
        """Where it goes, without a secret: the address, or the reference of the URL."""
        return self.address or self.url_secret or ""

    @property
    def secrets(self) -> Iterator[tuple[str, str]]:
        """Yield each key that names a secret, and the reference."""
        for key, reference in (("url_secret", self.url_secret), ("signing_secret", self.signing_secret)):
            if reference is not None:
                yield key, reference


ALERT = Shape.of(AlertSpec)
_EXAMPLES = {"on": 'write for example on = "dead_letter"', "to": 'write for example to = "slack"'}


class AlertTables(Struct, frozen=True):
    """An array of tables, each of them an alert."""

    description: str

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> tuple[AlertSpec, ...] | None:
        """See `harn.manifest.fields.Field.read`."""
        if not isinstance(value, list):
            header = ".".join(str(step) for step in path if isinstance(step, str))
            diagnostics.add(path, f"must be an array of tables, got {describe(value)}", f"write [[{header}]]")
            return None
        found = [self._read_one(one, (*path, index), diagnostics) for index, one in enumerate(value)]
        return tuple(one for one in found if one is not None)

    def json_schema(self) -> JsonSchema:
        """See `harn.manifest.fields.Field.json_schema`."""
        properties = {key: {"description": one.description, **one.json_schema()} for key, one in ALERT.fields.items()}
        properties["threshold"]["default"] = 1
        properties["within"]["default"] = format_duration(600.0)
        properties["every"]["default"] = format_duration(3600.0)
        for other, usual in ALERT.spellings().items():
            properties[other] = {**properties[usual], "deprecated": True}
        item = {"type": "object", "additionalProperties": False, "properties": properties, "required": ["on", "to"]}
        return {"type": "array", "items": item}

    @staticmethod
    def written(alerts: Any) -> list[dict[str, Any]]:
        """Return alerts, as built-in types, as the manifest writes them: without what is not set, times with a unit."""
        return [
            {
                key: format_duration(value) if isinstance(ALERT.fields[key], Duration) else value
                for key, value in alert.items()
                if value is not None
            }
            for alert in alerts
        ]

    @staticmethod
    def _read_one(raw: Any, path: KeyPath, diagnostics: Diagnostics) -> AlertSpec | None:
        table = Table.of(raw, path, diagnostics)
        if table is None:
            return None
        table = table.respelled(ALERT.spellings())
        given = table.values(ALERT, _EXAMPLES)
        if "on" not in given or "to" not in given:
            return None
        _check_together(table, given)
        return AlertSpec(**given)


def _check_together(table: Table, given: dict[str, Any]) -> None:
    """Check which keys go with ``on`` and ``to``."""
    on, to = given["on"], given["to"]
    if on not in COUNTED and "threshold" in table.raw:
        table.problem("threshold", f"does not count with on = {quote(on)}", "remove it; `within` is its limit")
    if to != WEBHOOK and "signing_secret" in table.raw:
        table.problem("signing_secret", f"does not count with to = {quote(to)}", "remove it")
    if to == EMAIL:
        _refuse(table, given, "url_secret", "write address = ... for email")
        _require(table, given, "address", 'write for example address = "ops@example.com"')
        fault = fault_of_mailbox(given["address"]) if given.get("address") else None
        if fault is not None:
            table.problem("address", *fault)
    elif to == SLACK:
        _refuse(table, given, "address", "the URL is a secret: write url_secret = ...")
        _require(table, given, "url_secret", 'name the secret that holds the URL: url_secret = "alerts/slack"')
    elif "url_secret" in table.raw and "address" in table.raw:
        table.problem("address", "does not go with url_secret", "keep one of the two")
    elif "address" in table.raw:
        wrong = fault_of_url(given["address"]) if "address" in given else None
        if wrong is not None:
            table.problem("address", wrong, "put a URL with anything secret in it into a secret, and name url_secret")
    else:
        _require(table, given, "url_secret", 'name the secret that holds the URL: url_secret = "alerts/webhook"')


def _refuse(table: Table, given: dict[str, Any], key: str, hint: str) -> None:
    if key in table.raw:
        table.problem(key, f"does not count with to = {quote(given['to'])}", hint)


def _require(table: Table, given: dict[str, Any], key: str, hint: str) -> None:
    if key not in table.raw:
        table.problem(key, f"is missing: to = {quote(given['to'])} needs it", hint)


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """The mail server that takes the messages of alerts; needed only for those to email."""

    host: Annotated[str | None, Text("Its name or address.")] = None
    port: Annotated[
        int | None, Integer("Its port; by default 587, with tls = tls 465, with tls = none 25.", 1, 65535)
    ] = None
    sender: Annotated[str | None, Text("The address that messages come from.", fault_of_mailbox)] = None
    username: Annotated[str | None, Text("The name to log in with; without it there is no login.")] = None
    password_secret: Annotated[
        str | None, Text("The secret that holds the password, as namespace/name.", fault_of_secret)
    ] = None
    tls: Annotated[str, Choice("How the connection is encrypted; none for a relay on this machine.", tuple(PORTS))] = (
        STARTTLS
    )

    @property
    def port_number(self) -> int:
        """The port, or the usual one."""
        return self.port or PORTS[self.tls]


def check_smtp(smtp: SmtpSettings, diagnostics: Diagnostics) -> None:
    """Check which keys of ``[orchestrator.smtp]`` go together."""
    path: KeyPath = ("orchestrator", "smtp")
    for key, other in (("username", "password_secret"), ("password_secret", "username")):
        if getattr(smtp, key) is not None and getattr(smtp, other) is None:
            diagnostics.add((*path, key), f"counts only with {other}", f"set that, or remove {key}")
    if smtp.password_secret is not None and smtp.tls == PLAIN:
        message = "would be sent without encryption"
        diagnostics.add((*path, "password_secret"), message, 'set tls to "starttls" or "tls", or log in without one')
    for key, value in (("host", smtp.host), ("from", smtp.sender)):
        if value is None and smtp != SmtpSettings():
            diagnostics.add((*path, key), "is missing", f"write {key} = ...")


def check_mailable(path: KeyPath, alerts: tuple[AlertSpec, ...], smtp: SmtpSettings, diagnostics: Diagnostics) -> None:
    """Record a diagnostic about each alert to email where there is no mail server to send it."""
    for index, alert in enumerate(alerts):
        if alert.to == EMAIL and smtp.host is None:
            hint = 'add [orchestrator.smtp] with host = "..." and from = "..."'
            diagnostics.add((*path, "alerts", index, "to"), "needs a mail server", hint)
