"""
A checked manifest, as values, and what its triggers refer to.

Structs of msgspec and not attrs classes: ten thousand of them are built, digested and sent between processes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen

from harn.model.references import FunctionReference
from harn.observability.levels import DEFAULT
from harn.wire import digest_value


class RetrySpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``max`` attempts in all (0 means 7); ``backoff`` is ``immediate``, ``svix`` or ``exponential``; ``base`` and ``cap``
    (seconds) and ``jitter`` (0 to 1, share of each delay that is random) are for ``exponential``;
    ``retention_days`` is how long a dedupe claim lasts; ``version`` is ``latest`` or ``pinned``.
    """

    max: int = 0
    backoff: str = "immediate"
    base: float = 1.0
    cap: float = 3600.0
    jitter: float = 0.5
    retention_days: int = 7
    version: str = "latest"


class RolloutSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    The gradual rollout of a changed trigger: ``percent`` of new deliveries first, ``step`` more after every ``every``
    (seconds); without a step it stays at that share. More failures than ``max_failures`` abort it; None for no limit.
    Shares are from 0 to 1.
    """

    percent: float
    step: float = 0.0
    every: float = 60.0
    max_failures: float | None = None


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    One trigger. Strings are as written in the manifest, defaults filled in.

    ``handler`` and ``when`` are normalized to ``module:function``; ``secrets`` maps a name to references in order;
    ``settings`` is the provider's own table, checked by its schema (as plain JSON values); ``timeout`` is seconds.
    ``handler_secrets`` are the references that the handler may fetch; None: any. ``rollout`` is about the next change:
    not part of the running definition, nor of the `fingerprint`.
    """

    id: str
    kind: str
    provider: str
    path: str
    handler: str
    events: tuple[str, ...] = ()
    when: str | None = None
    filter: str | None = None
    dedupe_key: str | None = None
    retry: RetrySpec = RetrySpec()
    timeout: float = 30.0
    secrets: dict[str, tuple[str, ...]] = {}
    settings: dict[str, Any] | None = None
    rollout: RolloutSpec | None = None
    handler_secrets: tuple[str, ...] | None = None

    def fingerprint(self) -> str:
        """Return the digest of the running definition."""
        digest = digest_value(_Running(*[getattr(self, name) for name in _RUNNING]))
        return digest if self.handler_secrets is None else digest_value([digest, sorted(set(self.handler_secrets))])

    def handler_reference(self) -> FunctionReference:
        """Return the handler as a reference."""
        module, _, function = self.handler.partition(":")
        return FunctionReference(module, function)

    def predicate_reference(self) -> FunctionReference | None:
        """Return the predicate of ``when`` as a reference, if there is one."""
        if self.when is None:
            return None
        module, _, function = self.when.partition(":")
        return FunctionReference(module, function)


_RUNNING = tuple(name for name in TriggerSpec.__struct_fields__ if name not in ("rollout", "handler_secrets"))
# A struct, since its fields are encoded in this order, and a dict's are not: fingerprints outlive a program.
_Running: Any = msgspec.defstruct("_Running", _RUNNING, frozen=True)


class DrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.drain]``: the limits of draining at shutdown; ``deadline_seconds`` in seconds."""

    max_items: int = 1024
    deadline_seconds: float = 30.0


class PumpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.pumps]``: ``max_outstanding`` handlers run at once."""

    max_outstanding: int = 64


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.retention]``: seconds; ``max_bytes`` None for no limit; ``generations`` a number of them."""

    events: float = 7 * 86400.0
    dead: float = 30 * 86400.0
    max_bytes: int | None = None
    generations: int = 20


class ReloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``[orchestrator.reload]``: seconds; ``timeout`` is for each stage. A new generation is rolled back unless an
    operator confirms it within ``confirm_within``, or when, for ``revert_for`` and of at least ``revert_min`` attempts,
    more than the share ``revert_on_failures`` (0 to 1) fail; None turns either off.
    """

    drain_timeout: float = 300.0
    timeout: float = 30.0
    confirm_within: float | None = None
    revert_on_failures: float | None = None
    revert_min: int = 20
    revert_for: float = 120.0


class VmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.vm]``: ``include`` adds local modules (globs relative to the manifest)."""

    include: tuple[str, ...] = ()


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``[orchestrator.admission]``: bounds on events that are not yet durable, and on bytes that are read before their
    sender is verified; ``rate`` (requests a second, of each trigger) and ``burst`` are off when None.
    """

    max_pending_events: int = 10_000
    max_pending_bytes: int = 256 * 1024 * 1024
    max_unverified_bytes: int = 128 * 1024 * 1024
    max_connections: int = 10_000
    global_rate: float | None = None
    rate: float | None = None
    burst: int | None = None


class OrchestratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator]``, defaults filled in."""

    allow_empty: bool = False
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 10_485_760
    recover: str = "auto"
    log_level: str = DEFAULT
    drain: DrainSettings = DrainSettings()
    pumps: PumpSettings = PumpSettings()
    retention: RetentionSettings = RetentionSettings()
    reload: ReloadSettings = ReloadSettings()
    vm: VmSettings = VmSettings()
    admission: AdmissionSettings = AdmissionSettings()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``path`` is absolute; ``digest`` is of the file's bytes; ``exports`` maps a module name to a path relative to the
    manifest; ``fingerprints`` maps a trigger id to its spec's `TriggerSpec.fingerprint`.
    """

    path: str
    digest: str
    package: str
    exports: dict[str, str]
    orchestrator: OrchestratorSettings
    triggers: dict[str, TriggerSpec]
    fingerprints: dict[str, str]


@frozen
class Use:
    """A place: ``key`` is dotted, as `harn.manifest.load.LoadedManifest.problem` takes it."""

    trigger_id: str
    key: str


def secret_references(manifest: Manifest) -> dict[str, tuple[Use, ...]]:
    """Return every secret reference, as written, with the places that use it."""
    uses: dict[str, list[Use]] = {}
    for spec in manifest.triggers.values():
        for name, references in spec.secrets.items():
            for index, reference in enumerate(references):
                key = f"secrets.{name}" if len(references) == 1 else f"secrets.{name}[{index}]"
                uses.setdefault(reference, []).append(Use(spec.id, key))
        for index, reference in enumerate(spec.handler_secrets or ()):
            uses.setdefault(reference, []).append(Use(spec.id, f"handler_secrets[{index}]"))
    return {reference: tuple(places) for reference, places in uses.items()}


def function_references(manifest: Manifest) -> dict[FunctionReference, tuple[Use, ...]]:
    """Return every handler and predicate, with the places that use it."""
    uses: dict[FunctionReference, list[Use]] = {}
    for spec in manifest.triggers.values():
        uses.setdefault(spec.handler_reference(), []).append(Use(spec.id, "handler"))
        predicate = spec.predicate_reference()
        if predicate is not None:
            uses.setdefault(predicate, []).append(Use(spec.id, "when"))
    return {reference: tuple(places) for reference, places in uses.items()}
