"""
A checked manifest, as values.

Structs of msgspec and not attrs classes: ten thousand of them are built, digested and sent between processes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harn.model.references import FunctionReference


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


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    One trigger. Strings are as written in the manifest, defaults filled in.

    ``handler`` and ``when`` are normalized to ``module:function``; ``secrets`` maps a name to references in order;
    ``settings`` is the provider's own table after its schema checked it (as plain JSON values); ``timeout`` is seconds.
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

    def handler_reference(self) -> FunctionReference:
        """The handler as a reference."""
        module, _, function = self.handler.partition(":")
        return FunctionReference(module, function)

    def predicate_reference(self) -> FunctionReference | None:
        """The predicate of ``when`` as a reference, if there is one."""
        if self.when is None:
            return None
        module, _, function = self.when.partition(":")
        return FunctionReference(module, function)


class DrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.drain]``: what shutdown waits for; ``deadline_seconds`` in seconds."""

    max_items: int = 1024
    deadline_seconds: float = 30.0


class PumpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.pumps]``: ``max_outstanding`` handlers run at once."""

    max_outstanding: int = 64


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.retention]``: seconds; ``max_bytes`` None for no limit."""

    events: float = 7 * 86400.0
    dead: float = 30 * 86400.0
    max_bytes: int | None = None


class ReloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.reload]``: seconds; ``timeout`` is for each stage."""

    drain_timeout: float = 300.0
    timeout: float = 30.0


class VmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator.vm]``: ``include`` adds local modules (globs relative to the manifest)."""

    include: tuple[str, ...] = ()


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``[orchestrator.admission]``: bounds on what is not yet durable; ``rate`` (requests a second, of each trigger) and
    ``burst`` are off when None.
    """

    max_pending_events: int = 10_000
    max_pending_bytes: int = 256 * 1024 * 1024
    global_rate: float | None = None
    rate: float | None = None
    burst: int | None = None


class OrchestratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[orchestrator]``, defaults filled in."""

    allow_empty: bool = False
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 10_485_760
    recover: str = "auto"
    drain: DrainSettings = DrainSettings()
    pumps: PumpSettings = PumpSettings()
    retention: RetentionSettings = RetentionSettings()
    reload: ReloadSettings = ReloadSettings()
    vm: VmSettings = VmSettings()
    admission: AdmissionSettings = AdmissionSettings()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    ``path`` is absolute; ``digest`` is of the file's bytes; ``exports`` maps a module name to a path relative to the
    manifest; ``fingerprints`` maps a trigger id to the digest of its spec.
    """

    path: str
    digest: str
    package: str
    exports: dict[str, str]
    orchestrator: OrchestratorSettings
    triggers: dict[str, TriggerSpec]
    fingerprints: dict[str, str]
