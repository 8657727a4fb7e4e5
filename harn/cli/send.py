"""``harn send``: a real request to a trigger of a running server, signed as its sender signs."""

from __future__ import annotations

import http.client
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.auth.credentials import API_KEYS, Credentials, authorization
from harn.cli.client import AnswerTimedOut, ServerAddress, ServerUnreachable, fault_of_url
from harn.cli.completion import complete_data, complete_path, complete_triggers
from harn.cli.demo_secret import derive_demo_key, derive_demo_pair, read_demo_secret
from harn.cli.options import Seconds, WholeNumber, read_data, with_json, with_place
from harn.cli.output import print_error
from harn.cli.place import CACERT, ServerLocation
from harn.cli.rows import print_json
from harn.errors import HarnError, RouteUnknown, SecretUnavailable, StageFailed
from harn.model.display import describe_unknown, visible
from harn.store.lock import served_manifest

if TYPE_CHECKING:
    from harn.connectors.interfaces import IConnectorPlugin
    from harn.manifest.load import LoadedManifest
    from harn.manifest.model import TriggerSpec
    from harn.model.exchange import InboundRequest


REQUESTING = frozenset(("webhook", "a2a-push"))
"""Kinds of triggers whose events come as requests."""


class CannotSend(HarnError):
    """The request cannot be made: no example, or no signature."""


@click.command()
@with_place
@click.argument("trigger", shell_complete=complete_triggers)
@click.option(
    "-d",
    "--data",
    metavar="TEXT|@FILE|-",
    help="The body: as text, of a file, or from stdin; else an example.",
    shell_complete=complete_data,
)
@click.option("-k", "--kind", metavar="K", help="The kind of the event, for example issues.opened.")
@click.option("-H", "--header", "headers", multiple=True, metavar="N:V", help="A further header; may be repeated.")
@click.option("--count", type=WholeNumber(1), default=1, show_default=True, metavar="N", help="Send so many.")
@click.option("--sender", metavar="NAME", help="Sign as this provider does, not as that of the trigger.")
@click.option("--url", metavar="URL", help="Where the server is, if not where its state file says.")
@click.option("--cacert", metavar="PATH", help=CACERT, shell_complete=complete_path)
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--timeout", type=Seconds(), default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@with_json
def send(trigger: str, count: int, as_json: bool, **given: Any) -> None:
    """
    Post a request to TRIGGER as its sender does, signed with the trigger's own secret.

    The manifest says path, provider and secrets; the values come from the environment, as for a server. Each request
    has an id of its own. Prints status and answer; the exit status is 1 unless all are answered with 2xx.
    """
    location = ServerLocation.of_options(given["config"], given["state_dir"], os.environ)
    base = given["url"] or location.needed_listener()
    wrong = fault_of_url(base)
    if wrong:
        raise click.UsageError(f"--url is not the URL of a server: {wrong}")
    sending = prepare(location, trigger, given)
    server = ServerAddress(url=base, cacert=given["cacert"], insecure=given["insecure"], timeout=given["timeout"])
    answers = []
    for _ in range(count):
        answer = post(server, sending.request(urlsplit(base).netloc, time.time()))
        answers.append(answer)
        if not as_json:
            click.echo(f"{answer.status} {visible(answer.text)}".rstrip())
    if as_json:
        documents = [{"status": answer.status, "answer": answer.document} for answer in answers]
        print_json(documents[0] if count == 1 else documents)
    refused = [answer for answer in answers if not 200 <= answer.status < 300]
    if refused:
        print_error(explain(refused[0], sending, location.state_dir_name))
    sys.exit(1 if refused else 0)


@frozen(kw_only=True)
class Sending:
    """
    The requests to send.

    :ivar demo: the names of secrets that have the demo value.
    :ivar private_key: of a sender that signs with one, where the public key is the demo value's.
    :ivar credentials: harn's own, for a trigger that verifies nothing else; empty for any other.
    """

    plugin: IConnectorPlugin
    spec: TriggerSpec
    secrets: Mapping[str, Sequence[bytes]] = field(repr=False)
    demo: tuple[str, ...]
    private_key: bytes | None = field(repr=False)
    credentials: Credentials = field(repr=False)
    kind: str | None
    body: bytes | None
    headers: Mapping[str, str]

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """The provider's table of the trigger; None where another provider signs."""
        return self.spec.settings if self.plugin.provider == self.spec.provider else None

    def request(self, host: str, now: float) -> InboundRequest:
        """
        Return the next request.

        :raises CannotSend: it cannot be made, or not be signed.
        """
        from harn.model.exchange import InboundRequest
        from harn.testing.events import sample
        from harn.testing.renewal import renewed
        from harn.testing.signers import signed_request

        plugin, settings = self.plugin, self.settings
        try:
            found = sample(plugin, self.kind or self._usual_kind(now), body=self.body, settings=settings)
            found = renewed(plugin, found, str(uuid.uuid4()), settings, keeps_body=self.body is not None)
            request = InboundRequest(
                method="POST",
                path=self.spec.path,
                query="",
                headers={**found.headers, "host": host, **self.headers},
                body=found.body,
                received_at=now,
            )
            checked = None if plugin.schema is None else plugin.schema.check(settings or {})[0]
            signed = signed_request(plugin, self.secrets, request, now, checked, self.private_key, self.spec.id)
            proven = with_credentials(self.credentials, signed, now)
            return msgspec.structs.replace(proven, headers={**proven.headers, **self.headers})  # those given win
        except (ValueError, StageFailed) as wrong:
            raise CannotSend(str(wrong)) from None

    def _usual_kind(self, now: float) -> str | None:
        """Return a kind that the trigger takes, where that of the example, or of the body, is not one."""
        from harn.model.exchange import InboundRequest
        from harn.testing import shapes
        from harn.testing.events import normalized, sample
        from harn.triggers.matching import matches

        events, settings = self.spec.events, self.settings
        try:
            found = sample(self.plugin, body=self.body, settings=settings)
            sent = {**found.headers, **self.headers}
            request = InboundRequest(
                method="POST", path=self.spec.path, query="", headers=sent, body=found.body, received_at=now
            )
            kind = normalized(self.plugin, request, settings).kind
        except ValueError:
            kind = ""
        if not events or matches(events, kind):
            return None
        if self.body is not None:
            return next((each for each in events if not each.endswith(".*")), None)
        known = shapes.kinds(self.plugin.provider)
        return next((each for each in known if matches(events, each)), events[0].replace(".*", ".example"))


def prepare(location: ServerLocation, trigger: str, given: Mapping[str, Any]) -> Sending:
    """
    Read the request to send, and the secrets to sign it with.

    :raises ManifestInvalid: the manifest has problems.
    :raises RouteUnknown: it has no such trigger.
    :raises SecretUnavailable: a secret of it is not set.
    :raises CannotSend: the provider is wrong.
    :raises click.UsageError: a header is.
    """
    from harn.testing.events import plugin_of

    triggers = read_triggers(location).manifest.triggers
    spec = triggers.get(trigger)
    if spec is None:
        raise RouteUnknown(describe_unknown(trigger, triggers))
    if not spec.path:
        raise CannotSend(f"trigger {trigger!r} is of kind {spec.kind!r} and gets no requests; try: harn fire {trigger}")
    try:
        plugin = plugin_of(given["sender"] or spec.provider)
    except ValueError as wrong:
        raise CannotSend(f"--sender: {wrong}") from None
    if given["sender"] and REQUESTING.isdisjoint(plugin.kinds):
        raise CannotSend(f"--sender: {plugin.provider} sends no requests; name the sender of a webhook")
    demo_value = read_demo_secret(location.state_dir)
    pair = None if demo_value is None else derive_demo_pair(plugin, demo_value)
    secrets, demo = read_secrets(spec, pair.public if pair else demo_value)
    credentials, is_demo = own_credentials(plugin, spec, demo_value)
    return Sending(
        plugin=plugin,
        spec=spec,
        secrets=secrets,
        demo=(*demo, API_KEYS) if is_demo else demo,
        private_key=pair.private if pair and demo else None,
        credentials=credentials,
        kind=given["kind"],
        body=None if given["data"] is None else read_data(given["data"]),
        headers=dict(map(read_header, given["headers"])),
    )


def own_credentials(plugin: IConnectorPlugin, spec: TriggerSpec, demo: str | None) -> tuple[Credentials, bool]:
    """
    Return harn's own credentials for a trigger that verifies nothing else, and whether they are the demo value.

    :param demo: the demo value; None if no ``harn dev`` has served on the state directory.
    :raises SecretUnavailable: a file of credentials cannot be read.
    """
    if not needs_own_credentials(plugin, spec):
        return Credentials(), False
    found = Credentials.from_environment(os.environ)
    if found.configured or demo is None:
        return found, False
    return Credentials(keys=(derive_demo_key(demo).encode(),)), True


def with_credentials(credentials: Credentials, request: InboundRequest, now: float) -> InboundRequest:
    """Return a request that shows credentials, unless there are none, or it has others; ``now``: seconds, Unix."""
    if not credentials.configured or "authorization" in request.headers:
        return request
    if not credentials.keys:  # a signature is accepted once: the same body in the same second needs another
        request = msgspec.structs.replace(request, query=f"request_id={uuid.uuid4()}")
    target = request.path + (f"?{request.query}" if request.query else "")
    shown = authorization(credentials, request.method, target, request.body, now)
    return msgspec.structs.replace(request, headers={**request.headers, "authorization": shown})


def needs_own_credentials(plugin: IConnectorPlugin, spec: TriggerSpec) -> bool:
    """Return whether a trigger verifies harn's own credentials only."""
    from harn.connectors.interfaces import CREDENTIALS

    settings = spec.settings or {}
    verifies = spec.secrets or settings.get("jwks_url") or settings.get("inline_jwks")
    return plugin.authentication == CREDENTIALS and not verifies


def read_triggers(location: ServerLocation) -> LoadedManifest:
    """
    Read the manifest that was named, or that the server on the state directory serves.

    :raises ManifestInvalid: it has problems.
    """
    from harn.manifest.load import check_document
    from harn.manifest.source import read_manifest
    from harn.reload.build import installed_rules

    path = location.manifest
    if not location.is_named:
        path = served_manifest(location.state_dir) or path
    return check_document(read_manifest(path), None, installed_rules())


def read_secrets(spec: TriggerSpec, demo: str | None) -> tuple[Mapping[str, Sequence[bytes]], tuple[str, ...]]:
    """
    Return the values of a trigger's secrets by name, and the names of those that have the demo value.

    :param demo: the demo value; None if no ``harn dev`` has served on the state directory.
    :raises SecretUnavailable: one is not set, and no ``harn dev`` has served on the state directory.
    """
    from harn.model.references import parse_secret_reference
    from harn.secrets.providers import SecretChain

    chain = SecretChain.from_environment(os.environ)
    found: dict[str, list[bytes]] = {}
    filled: list[str] = []
    for name, texts in spec.secrets.items():
        for text in texts:
            try:
                value = chain.resolve(parse_secret_reference(text))
            except SecretUnavailable as error:
                if demo is None:
                    raise SecretUnavailable(f"trigger {spec.id}: {error}, to the value that the server has") from None
                value = demo.encode()
                filled.append(text)
            found.setdefault(name, []).append(value)
    return found, tuple(filled)


LATIN_1 = 0xFF
"""The last character that a header may have."""


def read_header(text: str) -> tuple[str, str]:
    """
    Read ``Name: value``.

    :raises click.UsageError: it is something else.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable() or not name.strip().isascii():
        raise click.UsageError(f"--header must be NAME:VALUE, got {text!r}")
    if any(ord(each) > LATIN_1 for each in value):
        raise click.UsageError(f"--header must have characters of Latin-1 only, got {text!r}")
    return name.strip().lower(), value.strip()


class SenderAnswer(Struct, frozen=True):
    """The answer to a request: its status, and its body as text and, where that is JSON, decoded."""

    status: int
    text: str
    document: Any


def post(server: ServerAddress, request: InboundRequest) -> SenderAnswer:
    """
    Send a request, and read the answer.

    :raises ServerUnreachable: no server answers.
    :raises AnswerTimedOut: it does not answer in time.
    """
    target = server.target(request.path + (f"?{request.query}" if request.query else ""))
    connection = server.connect()
    try:
        connection.request(request.method, target, request.body, dict(request.headers))
        response = connection.getresponse()
        data = response.read()
    except TimeoutError as error:
        raise AnswerTimedOut(f"no answer from {server.url} within {server.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServerUnreachable(f"the connection to {server.url} broke: {error or type(error).__name__}") from error
    finally:
        connection.close()
    text = data.decode("utf-8", "replace").strip()
    try:
        return SenderAnswer(response.status, text, msgspec.json.decode(data))
    except msgspec.DecodeError:
        return SenderAnswer(response.status, text, text)


def explain(answer: SenderAnswer, sending: Sending, state_dir: str) -> str:
    """Return why a request was refused, and what to do where that is known."""
    detail = answer.document.get("detail") if isinstance(answer.document, dict) else None
    said = f"the server answered {answer.status}: {detail or answer.text or 'nothing'}"
    if answer.status == 401 and sending.demo:
        named = ", ".join(sending.demo)
        return f"{said}; signed with the demo value in {state_dir}: set {named} to the value that the server has"
    if answer.status == 401 and needs_own_credentials(sending.plugin, sending.spec):
        return f"{said}; HARN_ORCHESTRATOR_API_KEYS of this shell must have a key of the server"
    if answer.status == 401 and sending.plugin.provider != sending.spec.provider:
        return f"{said}; trigger {sending.spec.id} takes requests of {sending.spec.provider}: leave out --sender"
    if answer.status == 401 and not sending.secrets:
        return f"{said}; trigger {sending.spec.id} has no secrets in the manifest to sign with"
    if answer.status == 401:
        return f"{said}; the secret of this shell must be the server's"
    if answer.status == 404:
        return f"{said}; has the server adopted the trigger? harn reload"
    return said
