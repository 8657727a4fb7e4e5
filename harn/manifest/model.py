"""
A checked manifest, as values, and what its triggers refer to.

Structs of msgspec and not attrs classes: ten thousand of them are built, digested and sent between processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from harn.manifest.alerts import AlertSpec, AlertTables
from harn.manifest.fields import (
    Choice,
    Duration,
    Durations,
    Expression,
    Function,
    Integer,
    Number,
    Share,
    Text,
    Texts,
)
from harn.manifest.respond import USUAL_WAIT, RespondField, RespondSpec, Within
from harn.manifest.settings import OrchestratorSettings
from harn.manifest.tables import APART, Shape
from harn.manifest.vocabulary import KINDS, LATER_SCHEMES, fault_of_event, fault_of_id, fault_of_path
from harn.model.networks import fault_of_source
from harn.model.references import LOCAL, FunctionReference, fault_of_secret, scheme_of
from harn.wire import digest_value

EXPONENTIAL = "exponential"
BACKOFFS = ("immediate", "svix", EXPONENTIAL, "linear")
GROWING = frozenset((EXPONENTIAL, "linear"))
"""Backoffs that are computed from ``base`` and ``cap``."""
USUAL_JITTER = 0.5
"""The jitter of an exponential backoff that names none; other waits have none then."""


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    Retries after a failed attempt.

    ``max`` 0 means 7. ``base``, ``cap`` and each wait of ``schedule`` are seconds; an empty ``schedule`` leaves the
    waits to ``backoff``. ``jitter`` None is the default of the backoff: see `share_of_jitter`.
    """

    max: Annotated[int, Integer("Attempts in all; 0 for the default of 7.", 0, 100)] = 0
    backoff: Annotated[str, Choice("How the waits between attempts grow.", BACKOFFS)] = "immediate"
    schedule: Annotated[
        tuple[float, ...],
        Durations('The waits themselves, instead of backoff, for example ["5s", "1m", "10m"]; the last repeats.'),
    ] = ()
    base: Annotated[float, Duration("The first wait, for exponential and linear.")] = 1.0
    cap: Annotated[float, Duration("The longest wait, for exponential and linear.")] = 3600.0
    jitter: Annotated[
        float | None,
        Number("The share of each wait that is random; 0.5 for exponential and 0 for all others by default.", 0, 1),
    ] = None
    retention_days: Annotated[int, Integer("Days for which a dedupe key is kept.", 1, 3650)] = 7
    version: Annotated[str, Choice("Which version of the trigger runs a retry.", ("latest", "pinned"))] = "latest"

    @property
    def share_of_jitter(self) -> float:
        """The share of each wait that is random, from 0 to 1."""
        if self.jitter is not None:
            return self.jitter
        return USUAL_JITTER if self.backoff == EXPONENTIAL else 0.0

    def definition(self) -> Any:
        """
        Return the value that a fingerprint digests.

        Fingerprints outlive a program: a definition without the keys that came later has the bytes that it always had.
        """
        is_exponential = self.backoff == EXPONENTIAL
        jitter = self.share_of_jitter if is_exponential else USUAL_JITTER
        first = _FirstRetry(self.max, self.backoff, self.base, self.cap, jitter, self.retention_days, self.version)
        if is_exponential or (self.jitter is None and not self.schedule):
            return first
        return first, self.schedule, self.share_of_jitter


# A struct, since its fields are encoded in this order.
_FirstRetry: Any = msgspec.defstruct(
    "_FirstRetry", ("max", "backoff", "base", "cap", "jitter", "retention_days", "version"), frozen=True
)


class RolloutSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    Gradual rollout of a change of this trigger; all at once by default.

    Shares are from 0 to 1, ``every`` is seconds; without a ``step`` the share stays at ``percent``; ``max_failures``
    None for no limit.
    """

    percent: Annotated[
        float,
        Share("The share of new deliveries that a changed trigger begins with.", positive=True, partial=True),
    ]
    step: Annotated[
        float,
        Share("Increase of the share with each step; without it, it stays until an operator finishes or aborts."),
    ] = 0.0
    every: Annotated[float, Duration("How long a step lasts; at least 1s.", low=1.0)] = 60.0
    max_failures: Annotated[
        float | None,
        Share("Share of failed attempts above which the rollout is aborted; no limit by default.", partial=True),
    ] = None


WAIT, DEAD_LETTER = "wait", "dead_letter"


class CircuitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    When the destination is given time to recover from failures; never by default for a local function.

    ``reset`` is seconds.
    """

    failures: Annotated[
        int, Integer("Deliveries in a row that failed an attempt, after which the circuit opens; 0: never.", 0, 1000)
    ] = 5
    reset: Annotated[float, Duration("How long it stays open before one delivery is tried.")] = 60.0
    open: Annotated[
        str, Choice("What happens to deliveries meanwhile: they wait, or become dead letters.", (WAIT, DEAD_LETTER))
    ] = WAIT


class MatchTable(msgspec.Struct, frozen=True, kw_only=True):
    """The events that this trigger accepts."""

    events: Annotated[
        tuple[str, ...],
        Texts("Kinds of event, such as issues.opened or issues.*; empty for all.", Text("", fault_of_event)),
    ] = ()
    path: Annotated[str | None, Text("The same as the trigger's path.", fault_of_path)] = None


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    One trigger. Strings are as written in the manifest, defaults filled in.

    ``handler`` and ``when`` are normalized to ``module:function``, a handler of another scheme as its plugin spells it
    (``scheme://...``); ``secrets`` maps a name to references in order;
    ``settings`` is the provider's own table, checked by its schema (as plain JSON values); ``timeout`` is seconds.
    ``handler_secrets`` are the references that the handler may fetch; None: any. ``rollout`` is about the next change:
    not part of the running definition, nor of the `fingerprint`.
    """

    id: Annotated[
        str,
        Text("The trigger's name: unique, and the same from one version of the manifest to the next.", fault_of_id),
    ]
    kind: Annotated[str, Choice("How events arrive.", KINDS)]
    provider: Annotated[str, Text("The sender: a provider of this installation.")]
    path: Annotated[str, Text("The route, matched exactly; /triggers/<id> by default.", fault_of_path)]
    handler: Annotated[
        str,
        Function(
            "The Python function that handles events, as module:function; or another destination, as scheme://...",
            LATER_SCHEMES,
        ),
    ]
    events: Annotated[tuple[str, ...], APART] = ()
    when: Annotated[
        str | None,
        Function("A Python function that decides first, in the same version, whether to handle the event."),
    ] = None
    poll: Annotated[
        str | None,
        Function("Of kind poll: the Python function that looks for news, as module:function."),
    ] = None
    filter: Annotated[
        str | None, Expression("JMESPath over {event: ...}; an event is kept when the value is truthy.")
    ] = None
    dedupe_key: Annotated[
        str | None, Expression("JMESPath over {event: ...}; events with a repeated key are dropped.")
    ] = None
    retry: RetrySpec = RetrySpec()
    timeout: Annotated[float, Duration('How long the handler may run; "30s" by default.')] = 30.0
    secrets: Annotated[dict[str, tuple[str, ...]], APART] = {}
    settings: Annotated[dict[str, Any] | None, APART] = None
    rollout: RolloutSpec | None = None
    handler_secrets: Annotated[
        tuple[str, ...] | None,
        Texts(
            "The secrets that the handler may fetch, as namespace/name; by default any that resolves.",
            Text("", fault_of_secret),
        ),
    ] = None
    alerts: Annotated[
        tuple[AlertSpec, ...], AlertTables("Messages about this trigger when something is wrong with it.")
    ] = ()
    max_outstanding: Annotated[
        int | None,
        Integer("How many of its handlers run at the same time; without it only the server's limit holds.", 1, 100_000),
    ] = None
    weight: Annotated[
        int, Integer("How many of its deliveries begin in its turn among the triggers; 1 by default.", 1, 1000)
    ] = 1
    circuit: CircuitSpec | None = None
    allow_from: Annotated[
        tuple[str, ...],
        Texts(
            'Networks from which requests are accepted, for example ["10.0.0.0/8"], or "github"; any by default.',
            Text("", fault_of_source),
        ),
    ] = ()
    client_ca: Annotated[
        str | None,
        Text("The file of the authority (PEM) whose client certificates requests must have, relative to the manifest."),
    ] = None
    respond: Annotated[
        RespondSpec | None,
        RespondField('The answer to the request: "handler", or always the same status, body and content_type.'),
    ] = None
    respond_within: Annotated[
        float, Within('How long a request waits for its handler with respond = "handler"; "3s" by default.')
    ] = USUAL_WAIT

    def fingerprint(self) -> str:
        """Return the digest of the running definition."""
        running = _Running(*[getattr(self, name) for name in _RUNNING])
        running.retry = self.retry.definition()
        digest = digest_value(running)
        if self.handler_secrets is not None:
            digest = digest_value([digest, sorted(set(self.handler_secrets))])
        if self.alerts:
            digest = digest_value([digest, {"alerts": self.alerts}])
        if self.max_outstanding is not None or self.weight != 1:
            digest = digest_value([digest, {"max_outstanding": self.max_outstanding, "weight": self.weight}])
        if self.circuit is not None:
            digest = digest_value([digest, {"circuit": self.circuit}])
        if self.allow_from:
            digest = digest_value([digest, {"allow_from": self.allow_from}])
        if self.client_ca is not None:
            digest = digest_value([digest, {"client_ca": self.client_ca}])
        if self.poll is not None:
            digest = digest_value([digest, {"poll": self.poll}])
        if self.respond is not None or self.respond_within != USUAL_WAIT:
            digest = digest_value([digest, {"respond": self.respond, "respond_within": self.respond_within}])
        return digest

    @property
    def handler_kind(self) -> str:
        """The scheme of the handler: ``local`` for a function."""
        return scheme_of(self.handler)

    @property
    def target_uri(self) -> str | None:
        """The handler, where that is an address; None for a local function."""
        return None if self.handler_kind == LOCAL else self.handler

    def handler_reference(self) -> FunctionReference | None:
        """Return the handler as a reference; None where it is not a local function."""
        if self.handler_kind != LOCAL:
            return None
        module, _, function = self.handler.partition(":")
        return FunctionReference(module, function)

    def poll_reference(self) -> FunctionReference | None:
        """Return the function of ``poll`` as a reference, if there is one."""
        if self.poll is None:
            return None
        module, _, function = self.poll.partition(":")
        return FunctionReference(module, function)

    def predicate_reference(self) -> FunctionReference | None:
        """Return the predicate of ``when`` as a reference, if there is one."""
        if self.when is None:
            return None
        module, _, function = self.when.partition(":")
        return FunctionReference(module, function)


TRIGGER, MATCH = Shape.of(TriggerSpec), Shape.of(MatchTable)
"""The keys and tables of ``[[triggers]]``, and of its table ``match``."""

_APART = (
    "rollout",
    "handler_secrets",
    "alerts",
    "max_outstanding",
    "weight",
    "circuit",
    "respond",
    "respond_within",
    "allow_from",
    "poll",
    "client_ca",
)
_RUNNING = tuple(name for name in TriggerSpec.__struct_fields__ if name not in _APART)
# A struct, since its fields are encoded in this order, and a dict's are not: fingerprints outlive a program.
_Running: Any = msgspec.defstruct("_Running", _RUNNING)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``path`` is absolute; ``digest`` is of the bytes of all its files; ``include`` has the patterns of those beside it;
    ``exports`` maps a module name to a path relative to the manifest; ``fingerprints`` maps a trigger id to its spec's
    `TriggerSpec.fingerprint`.
    """

    path: str
    digest: str
    package: str
    exports: dict[str, str]
    orchestrator: OrchestratorSettings
    triggers: dict[str, TriggerSpec]
    fingerprints: dict[str, str]
    include: tuple[str, ...] = ()


class ReferenceSite(Struct, frozen=True):
    """
    A place: ``key`` is dotted, as `harn.manifest.load.LoadedManifest.problem` takes it; without a trigger it is in
    ``[orchestrator]``.
    """

    trigger_id: str | None
    key: str


class AlertSecret(Struct, frozen=True):
    """A secret that sending alerts needs; ``key`` is ``url_secret``, ``signing_secret`` or ``password_secret``."""

    reference: str
    key: str
    site: ReferenceSite


def alert_secrets(manifest: Manifest) -> Iterator[AlertSecret]:
    """Yield every secret that sending the manifest's alerts needs, once for each place that names it."""
    settings = manifest.orchestrator
    named: list[tuple[str | None, tuple[AlertSpec, ...]]] = [(None, settings.alerts)]
    named += [(spec.id, spec.alerts) for spec in manifest.triggers.values() if spec.alerts]
    for trigger_id, alerts in named:
        for index, alert in enumerate(alerts):
            for key, reference in alert.secrets:
                yield AlertSecret(reference, key, ReferenceSite(trigger_id, f"alerts[{index}].{key}"))
    if settings.smtp.password_secret is not None:
        key = "password_secret"
        yield AlertSecret(settings.smtp.password_secret, key, ReferenceSite(None, f"smtp.{key}"))


def secret_references(manifest: Manifest) -> dict[str, tuple[ReferenceSite, ...]]:
    """Return every secret reference, as written, with the places that use it."""
    uses: dict[str, list[ReferenceSite]] = {}
    for spec in manifest.triggers.values():
        for name, references in spec.secrets.items():
            for index, reference in enumerate(references):
                key = f"secrets.{name}" if len(references) == 1 else f"secrets.{name}[{index}]"
                uses.setdefault(reference, []).append(ReferenceSite(spec.id, key))
        for index, reference in enumerate(spec.handler_secrets or ()):
            uses.setdefault(reference, []).append(ReferenceSite(spec.id, f"handler_secrets[{index}]"))
    for each in alert_secrets(manifest):
        uses.setdefault(each.reference, []).append(each.site)
    return {reference: tuple(places) for reference, places in uses.items()}


def function_references(manifest: Manifest) -> dict[FunctionReference, tuple[ReferenceSite, ...]]:
    """Return every function that is a handler or a predicate, with the places that use it."""
    uses: dict[FunctionReference, list[ReferenceSite]] = {}
    for spec in manifest.triggers.values():
        handler = spec.handler_reference()
        if handler is not None:
            uses.setdefault(handler, []).append(ReferenceSite(spec.id, "handler"))
        predicate = spec.predicate_reference()
        if predicate is not None:
            uses.setdefault(predicate, []).append(ReferenceSite(spec.id, "when"))
        poll = spec.poll_reference()
        if poll is not None:
            uses.setdefault(poll, []).append(ReferenceSite(spec.id, "poll"))
    return {reference: tuple(places) for reference, places in uses.items()}
