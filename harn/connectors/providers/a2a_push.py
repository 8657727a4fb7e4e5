"""
Push notifications of the Agent2Agent protocol: from agents that sign, with a token that was agreed, or with the
server's own credentials.

Source: Agent2Agent Protocol, "Push Notification Security".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.connectors import bodies
from harn.connectors.bodies import Document
from harn.connectors.credentials import TokenScheme
from harn.connectors.fetching import DocumentState, HttpFetcher, IFetcher, fault_of_document_url
from harn.connectors.interfaces import (
    CREDENTIALS,
    VERIFIED_HERE,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IKeyedReceiver,
    Normalized,
    NormalizedEvent,
)
from harn.connectors.jwks import KeySet, read_key_set
from harn.connectors.jwt_verifier import JwtVerifier, bearer_token
from harn.connectors.messages import Example
from harn.connectors.receivers import Receiver
from harn.connectors.schedule import seconds_of
from harn.connectors.signatures import any_equal, as_sent
from harn.connectors.signing_keys import prove
from harn.errors import SignatureMismatch, SignatureMissing
from harn.manifest.interfaces import SettingProblem
from harn.manifest.tables import StructSchema
from harn.model.delivery import Claim
from harn.model.event import UNSIGNED, VERIFIED
from harn.model.exchange import InboundRequest
from harn.wire import canonical_json

TOKEN = "token"  # noqa: S105 - the name of a secret
TOKEN_NAME = "X-A2A-Notification-Token"  # noqa: S105 - the name of a header
TOKEN_HEADERS = (TOKEN_NAME.lower(), "x-a2a-token")
LONGEST_LEEWAY = 300.0
_TOKEN = TokenScheme(header=TOKEN_NAME)
_PREFIX = "TASK_STATE_"

# The paths of each field: the shapes of a notification (task, statusUpdate, artifactUpdate, message), bare or wrapped,
# in the protocol's spelling or harn's. The first path that exists is used; without any, the first of the list.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "task_id": (
        ("task_id",),
        ("taskId",),
        ("statusUpdate", "taskId"),
        ("artifactUpdate", "taskId"),
        ("task", "id"),
        ("message", "taskId"),
        ("id",),
    ),
    "task_state": (
        ("task_state",),
        ("status", "state"),
        ("statusUpdate", "status", "state"),
        ("task", "status", "state"),
    ),
    "artifact": (("artifact",), ("artifactUpdate", "artifact")),
    "sender": (("sender",),),
}


class A2aPushSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.a2a_push]``."""

    jwks_url: Annotated[
        str | None, msgspec.Meta(description="Where the agent publishes its public keys (a JSON Web Key Set).")
    ] = None
    inline_jwks: Annotated[
        dict[str, Any] | None, msgspec.Meta(description="The key set itself, instead of jwks_url.")
    ] = None
    expected_iss: Annotated[str | None, msgspec.Meta(description="What the token's iss must be.")] = None
    expected_aud: Annotated[str | None, msgspec.Meta(description="What the token's aud must name.")] = None
    audience: Annotated[str | None, msgspec.Meta(description="Another spelling of expected_aud.")] = None
    leeway: Annotated[str, msgspec.Meta(description="By how much the agent's clock may differ; at most 5m.")] = "60s"

    @classmethod
    def of(cls, table: Any) -> A2aPushSettings:
        """Convert the checked table, given as plain values or as this class."""
        return msgspec.convert(table or {}, cls, from_attributes=True)

    @property
    def signs(self) -> bool:
        """Whether the agent's tokens are verified."""
        return self.jwks_url is not None or self.inline_jwks is not None

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values."""
        seconds, found = seconds_of(self.leeway, "leeway")
        problems = list(found)
        if seconds > LONGEST_LEEWAY:
            problems.append(SettingProblem(key="leeway", message=f"must be at most {LONGEST_LEEWAY:g}s"))
        if self.expected_aud is not None and self.audience is not None:
            problems.append(SettingProblem(key="audience", message="is expected_aud once more", hint="remove it"))
        needed = {"expected_iss": self.expected_iss, "expected_aud": self.expected_aud or self.audience}
        if not self.signs:
            hint = "give jwks_url or inline_jwks too, or remove it; without them the route requires harn's credentials"
            problems += [
                SettingProblem(key=key, message="counts only for tokens that are verified", hint=hint)
                for key, value in needed.items()
                if value is not None
            ]
            return problems
        problems += [
            SettingProblem(
                key=key, message="is missing: tokens of anybody else would pass", hint=f'write {key} = "..."'
            )
            for key, value in needed.items()
            if not value
        ]
        return [*problems, *self._problems_of_keys()]

    def _problems_of_keys(self) -> Iterator[SettingProblem]:
        if self.jwks_url is not None and self.inline_jwks is not None:
            yield SettingProblem(key="inline_jwks", message="is given, and so is jwks_url", hint="keep one of them")
        elif self.jwks_url is not None:
            fault = fault_of_document_url(self.jwks_url)
            if fault is not None:
                yield SettingProblem(key="jwks_url", message=fault)
        else:
            try:
                read_key_set(self.inline_jwks)
            except ValueError as error:
                yield SettingProblem(key="inline_jwks", message=str(error))


@implementer(IKeyedReceiver)
class A2aPushConnector(Receiver):
    """
    Receives the notifications of one trigger.

    :ivar authentication: `CREDENTIALS` where nothing else is verified: then the listener has checked harn's own before.
    :ivar jwt: verifies tokens; None where the agent does not sign.
    """

    credential_headers = ("authorization", *TOKEN_HEADERS)

    def __init__(self, context: ConnectorContext, fetcher: IFetcher) -> None:
        super().__init__(context)
        settings = A2aPushSettings.of(context.binding.settings)
        self.jwt: JwtVerifier | None = None
        self._key_set: KeySet | None = None
        if settings.signs:
            fixed = () if settings.inline_jwks is None else read_key_set(settings.inline_jwks)
            self._key_set = KeySet(context.clock, fetcher, settings.jwks_url, fixed)
            self.jwt = JwtVerifier(
                keys=self._key_set,
                issuer=settings.expected_iss or "",
                audience=settings.expected_aud or settings.audience or "",
                leeway=seconds_of(settings.leeway, "leeway")[0],
            )
        self._expects_token = bool(context.binding.secrets.get(TOKEN))
        verifies = self.jwt is not None or self._expects_token
        self.authentication = VERIFIED_HERE if verifies else CREDENTIALS

    def prepare(self) -> None:
        """Prepare the agreed token; public keys are fetched later, so that no start depends on another machine."""
        if self._expects_token:
            self._use_secret(TOKEN, _TOKEN)

    def activate(self) -> None:
        """Begin to fetch the public keys, unless `warm` has."""
        self.warm()

    def warm(self) -> Deferred[None] | None:
        """Fetch the public keys for the first request; see `KeySet.warm`."""
        return None if self._key_set is None else self._key_set.warm()

    def document(self) -> DocumentState | None:
        """Return how fetching the public keys goes; None where none are fetched."""
        return None if self._key_set is None else self._key_set.state(self._binding.trigger_id)

    def prove(self, request: InboundRequest, now: float) -> InboundRequest:
        """
        Return a request as the agent would send it, with the agreed token if there is one.

        :raises ValueError: the agent signs, with a key that only it has.
        """
        if self.jwt is not None:
            raise ValueError(
                "the agent signs with a private key, and only its public keys are here; to try it, leave [a2a_push] out"
                " and agree on a token (secrets.token)"
            )
        return request if not self._expects_token else prove(_TOKEN, self._keys[0], request, now)

    def example_of(self, kind: str | None = None) -> Example:
        """Return a notification that a task has another state: that of ``kind``, for example ``a2a.task.working``."""
        state = (kind or "a2a.task.completed").removeprefix("a2a.task.").upper().replace("-", "_")
        update = {"taskId": "task-1", "contextId": "context-1", "status": {"state": f"{_PREFIX}{state}"}}
        return Example(body=canonical_json({"statusUpdate": update}), headers={"X-A2A-Delivery": "delivery-1"})

    def example(self) -> NormalizedEvent:
        """Return the event of the example, with its body."""
        body = self.example_of().body
        request = InboundRequest(method="POST", path="/", query="", headers={}, body=body, received_at=0.0)
        found = self.normalize(request)
        assert isinstance(found, Events)
        return msgspec.structs.replace(found.events[0], body=body)

    def close(self) -> None:
        """Remove the keys."""
        super().close()
        if self._key_set is not None:
            self._key_set.close()

    def look_for_keys(self, headers: Mapping[str, str]) -> Deferred[None] | None:
        """
        Fetch the public keys again if a request names one that is not known.

        :return: see `KeySet.look_for`.
        """
        if self.jwt is None or self._key_set is None:
            return None
        return self._key_set.look_for(self.jwt.kid_of(headers))

    def claim_of(self, headers: Mapping[str, str]) -> Claim | None:
        """See `JwtVerifier.claim_of`."""
        return None if self.jwt is None else self.jwt.claim_of(headers)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that what is verified is there at all."""
        if self.jwt is not None:
            bearer_token(headers)
        if self._expects_token and _given_token(headers) is None:
            raise SignatureMissing(f"the header {TOKEN_NAME} with the agreed token is missing")

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the agent's token and the agreed one, where the trigger has them; see ``authentication``."""
        self.check_headers(inbound.headers)
        if self._expects_token and not any_equal(self._keys, [_given_token(inbound.headers) or ""]):
            raise SignatureMismatch(f"{TOKEN_NAME} is not the token that is configured here")
        if self.jwt is not None:
            self.jwt.verify(inbound.headers, now)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """
        Return one event; a notification must be a JSON object.

        Its kind is the notification's name where the agent was verified, else ``push``.
        """
        body = inbound.body
        bodies.check_charset(inbound.headers, body)
        notification = bodies.read_object(body)
        lifted = {}
        for name, places in _PLACES.items():
            place = next((place for place in places if notification.at(*place) is not None), places[0])
            lifted[name] = list(place)
        kind = _kind(notification, lifted)
        is_verified = self.authentication == VERIFIED_HERE
        event = NormalizedEvent(
            kind=kind if is_verified else "push",
            dedupe_key=bodies.word(inbound.headers.get("x-a2a-delivery")) or bodies.body_digest(body),
            payload={"kind": kind},
            lifted=lifted,
            signature_status=VERIFIED if is_verified else UNSIGNED,
        )
        return Events((event,))


def _given_token(headers: Mapping[str, str]) -> str | None:
    return next((as_sent(headers[name]) for name in TOKEN_HEADERS if name in headers), None)


def _kind(notification: Document, lifted: Mapping[str, Sequence[str]]) -> str:
    """Return the notification's name: ``a2a.task.<state>``, else ``.artifact``, ``.message`` or ``.update``."""
    state = bodies.word(notification.at(*lifted["task_state"]))
    if state is not None:
        # Version 1 writes TASK_STATE_INPUT_REQUIRED, earlier ones input-required. The protocol writes canceled with one
        # l; senders write either.
        if state.startswith(_PREFIX):
            state = state.removeprefix(_PREFIX).lower().replace("_", "-")
        return "a2a.task.canceled" if state == "cancelled" else f"a2a.task.{state}"
    if notification.at(*lifted["artifact"]) is not None:
        return "a2a.task.artifact"
    return "a2a.task.message" if notification.at("message") is not None else "a2a.task.update"


@implementer(IPlugin, IConnectorPlugin)
class A2aPushPlugin:
    """The provider ``a2a-push``; ``authentication`` is of a trigger that verifies nothing itself."""

    provider = "a2a-push"
    kinds = ("a2a-push",)
    table = "a2a_push"
    schema = StructSchema(A2aPushSettings)
    required_secrets = ()
    optional_secrets = (TOKEN,)
    authentication = CREDENTIALS

    def __init__(self, fetcher: IFetcher | None = None) -> None:
        """:param fetcher: fetches public keys; by default over HTTP."""
        self._fetcher = fetcher

    def connector(self, context: ConnectorContext) -> A2aPushConnector:
        """Make the connector of one trigger."""
        return A2aPushConnector(context, self._fetcher or HttpFetcher(context.clock))
