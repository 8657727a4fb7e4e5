"""Applying ``[orchestrator]``: what each setting of a new generation changes in the running server, at adopt."""

from __future__ import annotations

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials
from harn.dispatch.dispatcher import Dispatcher
from harn.listener.admission import Admission
from harn.listener.site import HarnSite
from harn.manifest.model import OrchestratorSettings
from harn.observability.metrics import Metrics
from harn.orchestrator.options import ServeOptions
from harn.reload.generation import Candidate
from harn.store.model import RetentionPolicy


class LiveSettings:
    """
    Applies each generation's settings, within the turn that adopts it, and answers for those that are asked for.

    :ivar site: what takes the listener's settings; given once it is made.
    """

    site: HarnSite

    def __init__(self, options: ServeOptions, admission: Admission, dispatcher: Dispatcher, metrics: Metrics) -> None:
        self._options = options
        self._admission = admission
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._settings = OrchestratorSettings()
        self._authenticator = Authenticator(Credentials())

    def apply(self, candidate: Candidate) -> None:
        """Apply; a flag of the command line wins over the manifest."""
        inputs = candidate.generation.inputs
        settings = self._settings = inputs.manifest.orchestrator
        self._authenticator = Authenticator(inputs.credentials)
        self.site.apply(settings.allowed_origins, settings.max_body_bytes)
        self._admission.apply(settings.admission, inputs.manifest.triggers)
        self._dispatcher.apply(self._options.pump_max_outstanding or settings.pumps.max_outstanding)
        self._metrics.forget(candidate.plan.removed)

    def current_authenticator(self) -> Authenticator:
        """The one that checks the credentials of now."""
        return self._authenticator

    def retention(self) -> RetentionPolicy:
        """What the background trimming keeps."""
        retention = self._settings.retention
        return RetentionPolicy(events=retention.events, dead=retention.dead, max_bytes=retention.max_bytes)

    def drain_timeout(self) -> float:
        """Seconds that a version may drain."""
        return self._settings.reload.drain_timeout
