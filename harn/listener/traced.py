"""
Ingest while traces are on: each request to a trigger's route is reported, with the status of its response.

While traces are off, `harn.listener.ingest` and `harn.listener.push` are used instead, which spend nothing on them.
"""

from __future__ import annotations

from harn.connectors.interfaces import Reject
from harn.errors import Refused
from harn.lifecycle import Answered
from harn.listener.ingest import Examined, Ingest
from harn.listener.problems import status_of
from harn.listener.push import Push
from harn.listener.request import HarnRequest


class TracedIngest(Ingest):
    """The resource of every public route."""

    def admit(self, request: HarnRequest, length: int) -> None:
        """Report a request that is refused by its headers."""
        try:
            super().admit(request, length)
        except Exception as error:
            self._report(request, status_of(type(error)).code if isinstance(error, Refused) else 500)
            raise

    def _examined(self, examined: Reject | Examined, request: HarnRequest) -> None:
        """Keep the envelopes of the events for the report, as the request is verified."""
        route = request.route
        if isinstance(examined, Examined) and route is not None:
            decisions = ((route.binding, examined.decided), *examined.others)
            request.envelopes = {
                binding.id: decided.deliveries[0].envelope for binding, decided in decisions if decided.deliveries
            }
        super()._examined(examined, request)

    def over(self, request: HarnRequest, status: int | None) -> None:
        """Report a request that was admitted."""
        super().over(request, status)
        self._report(request, status)

    def _report(self, request: HarnRequest, status: int | None) -> None:
        """Report a request once for each trigger that it has events for; without events, for the first trigger."""
        route = request.route
        assert route is not None
        ended_at = request.site.wall.seconds()
        began_at = ended_at - (self._clock.seconds() - request.began_at)
        envelopes = request.envelopes or {}
        bindings = [each.binding for each in route.members if each.binding.id in envelopes] or [route.binding]
        for binding in bindings:
            answered = Answered(
                trigger_id=binding.id,
                provider=binding.spec.provider,
                path=route.path,
                method=request.method.decode("latin-1"),
                headers=request.headers,
                status=status,
                began_at=began_at,
                ended_at=ended_at,
                size=request.received,
                is_verified=request.envelopes is not None,
                envelope=envelopes.get(binding.id, b""),
            )
            self._lifecycle.emit(answered)


class TracedPush(TracedIngest, Push):
    """The resource of every route with ``credentials``."""
