"""CloudEvents over HTTP: structured, binary and batched; a token shows who sent them, or a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from harn.connectors.bodies import body_digest, media_type, word
from harn.connectors.credentials import SignedOrToken, TokenScheme
from harn.connectors.messages import Fact
from harn.connectors.receivers import Example, Message, Path, SignedProvider

SIGNATURE = SignedOrToken(name="cloudevents", token=TokenScheme(header="Authorization"))
"""Source: CloudEvents, "HTTP Protocol Binding" 1.0.2, and "HTTP 1.1 Web Hooks", which has a bearer token."""

_STRUCTURED, _BATCH = "application/cloudevents", "application/cloudevents-batch"
_NAMES = ("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
_OURS = ("provider", "raw", "data")


def _is_structured(message: Message) -> bool:
    return media_type(message.headers).startswith(_STRUCTURED)


def _read(headers: Mapping[str, str], body: bytes) -> Message | tuple[Message, ...]:
    """Parse a request of any mode."""
    kind = media_type(headers)
    if kind.startswith(_BATCH):
        return Message.each_of(headers, body)
    return Message.of(headers, body) if kind.startswith(_STRUCTURED) else Message.any_of(headers, body)


def _attribute(name: str) -> Fact:
    """Make a fact that reads an attribute: of the body, or of a header, where other characters are percent-encoded."""
    return lambda message: (
        message.at(name) if _is_structured(message) else unquote(message.headers.get(f"ce-{name}", "")) or None
    )


_FACTS = {name: _attribute(name) for name in _NAMES}


def _identity(message: Message) -> str | None:
    """Return source and id, which are unique together; their digest where they are long, as URIs may be."""
    source, identifier = _FACTS["source"](message), _FACTS["id"](message)
    if not (isinstance(source, str) and source and isinstance(identifier, str) and identifier):
        return None
    both = f"{source} {identifier}"
    return both if word(both) else body_digest(both.encode("utf-8", "surrogatepass"))


def _fields(message: Message) -> Mapping[str, Path]:
    """Return where the data is: in a member, or the whole body."""
    return {"data": ("data",), "data_base64": ("data_base64",)} if _is_structured(message) else {"data": ()}


def _values(message: Message) -> Mapping[str, Any]:
    """Return the attributes, and in binary mode the extensions."""
    found = {name: word(fact(message)) for name, fact in _FACTS.items()}
    more = {} if _is_structured(message) else message.headers
    extensions = {name[3:]: unquote(value) for name, value in more.items() if name.startswith("ce-")}
    return {name: value for name, value in {**extensions, **found}.items() if name not in _OURS}


CLOUDEVENTS = SignedProvider(
    provider="cloudevents",
    home=__name__,
    scheme=SIGNATURE,
    secrets=("token", "signing_secret"),
    any_secret=True,
    read=_read,
    kind=_FACTS["type"],
    identity=_identity,
    occurred_at=_FACTS["time"],
    fields=_fields,
    values=_values,
    example=Example(
        body=b'{"specversion": "1.0", "type": "com.example.order.created", "source": "/orders", "id": "A234-1234",'
        b' "time": "2018-04-05T17:31:00Z", "datacontenttype": "application/json", "data": {"order": 7}}',
        headers={"Content-Type": "application/cloudevents+json"},
    ),
)
