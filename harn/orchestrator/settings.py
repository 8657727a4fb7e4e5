"""Applying ``[orchestrator]``: what each setting of a new generation changes in the running server, at adopt."""

from __future__ import annotations

from collections.abc import Callable, Collection

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials
from harn.dispatch.dispatcher import Dispatcher
from harn.listener.admission import Admission
from harn.listener.site import HarnSite
from harn.manifest.model import OrchestratorSettings
from harn.observability.logs import threshold
from harn.options import ServeOptions
from harn.reload.generation import Candidate
from harn.rollout.trials import Needed
from harn.store.model import RetentionPolicy

REMEMBERED = 86400.0
"""Seconds after a trigger's removal for which its rate is remembered."""

LEAST_SHARE = 1024 * 1024
"""Bytes that waiting deliveries, and large running ones, may take at least: a quarter of the bound each."""


class LiveSettings:
    """
    Applies each generation's settings, within the turn that adopts it, and answers for those that are asked for.

    :ivar site: what takes the listener's settings; given once it is made.
    :ivar needed: names what must be kept however old it is; given once there is somebody who knows.
    """

    site: HarnSite
    needed: Callable[[], Needed]

    def __init__(
        self,
        options: ServeOptions,
        admission: Admission,
        dispatcher: Dispatcher,
        set_log_level: Callable[[str], None] = threshold.change,
        token: bytes | None = None,
    ) -> None:
        self._options = options
        self._set_log_level = set_log_level
        self._admission = admission
        self._dispatcher = dispatcher
        self._settings = OrchestratorSettings()
        self._removed_at: dict[str, float] = {}
        self._token = token
        self._authenticator = Authenticator(Credentials())
        self._admin_authenticator = Authenticator(Credentials(), token)
        self.needed = Needed

    def apply(self, candidate: Candidate) -> None:
        """Apply; a flag of the command line wins over the manifest."""
        inputs = candidate.generation.inputs
        settings = self._settings = inputs.manifest.orchestrator
        self._authenticator = Authenticator(inputs.credentials)
        self._admin_authenticator = Authenticator(inputs.credentials, self._token)
        self.site.apply(settings)
        self._admission.apply(settings.admission, self._remembered(candidate))
        share = max(LEAST_SHARE, settings.admission.max_pending_bytes // 4)
        self._dispatcher.apply(self._options.pump_max_outstanding or settings.pumps.max_outstanding, share)
        if self._options.log_level is None:
            self._set_log_level(settings.log_level)

    def _remembered(self, candidate: Candidate) -> Collection[str]:
        """Give the triggers whose rate buckets stay: those in force, and for a day those that were removed."""
        now = candidate.generation.since
        for trigger_id in candidate.plan.removed:
            self._removed_at[trigger_id] = now
        for trigger_id in candidate.plan.added:
            self._removed_at.pop(trigger_id, None)
        gone = [trigger_id for trigger_id, at in self._removed_at.items() if at + REMEMBERED <= now]
        for trigger_id in gone:
            del self._removed_at[trigger_id]
        triggers = candidate.generation.inputs.manifest.triggers
        return {*triggers, *self._removed_at} if self._removed_at else triggers

    def current_authenticator(self) -> Authenticator:
        """The one that checks the credentials of now."""
        return self._authenticator

    def admin_authenticator(self) -> Authenticator:
        """Return the one of now for the admin API, which takes the token in the state directory, too."""
        return self._admin_authenticator

    def retention(self) -> RetentionPolicy:
        """What the background trimming keeps."""
        retention, needed = self._settings.retention, self.needed()
        return RetentionPolicy(
            events=retention.events,
            dead=retention.dead,
            max_bytes=retention.max_bytes,
            generations=retention.generations,
            kept=needed.generations,
            versions=needed.versions,
        )

    def drain_timeout(self) -> float:
        """Seconds that a version may drain."""
        return self._settings.reload.drain_timeout
