"""CloudEvents over HTTP: structured, binary and batched; a token shows who sent them, or a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.connectors.credentials import SignedOrToken, TokenScheme
from harn.connectors.messages import together
from harn.connectors.modes import Modes
from harn.connectors.receivers import Example, Message, Path, SignedProvider

SIGNATURE = SignedOrToken(name="cloudevents", token=TokenScheme(header="Authorization"))
"""Source: CloudEvents, "HTTP Protocol Binding" 1.0.2, and "HTTP 1.1 Web Hooks", which has a bearer token."""

MODES = Modes(
    structured="application/cloudevents",
    batch="application/cloudevents-batch",
    prefix="ce-",
    required=("specversion", "id", "source", "type"),
)
_NAMES = ("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
_OURS = ("provider", "raw", "data")


def _fields(message: Message) -> Mapping[str, Path]:
    """Return where the data is: in a member, or the whole body."""
    is_structured = MODES.is_structured(message.headers)
    return {"data": ("data",), "data_base64": ("data_base64",)} if is_structured else {"data": ()}


def _values(message: Message) -> Mapping[str, Any]:
    """Return the attributes, and in binary mode the extensions."""
    return {name: value for name, value in MODES.values(message, _NAMES).items() if name not in _OURS}


CLOUDEVENTS = SignedProvider(
    provider="cloudevents",
    home=__name__,
    scheme=SIGNATURE,
    secrets=("token", "signing_secret"),
    any_secret=True,
    read=MODES.read,
    kind=MODES.attribute("type"),
    identity=together(MODES.attribute("source"), MODES.attribute("id")),
    occurred_at=MODES.attribute("time"),
    fields=_fields,
    values=_values,
    example=Example(
        body=b'{"specversion": "1.0", "type": "com.example.order.created", "source": "/orders", "id": "A234-1234",'
        b' "time": "2018-04-05T17:31:00Z", "datacontenttype": "application/json", "data": {"order": 7}}',
        headers={"Content-Type": "application/cloudevents+json"},
    ),
)
