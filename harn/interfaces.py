"""
The public names for authors of connector plugins.

A plugin is an object that provides `IConnectorPlugin`, in a module under ``harn/plugins/``. For a sender that signs by
an HMAC it is a `SignedProvider`: declarations, and no code. Any other makes, for requests, an `IReceiver`; for events
that it starts itself an `IConnector` that calls ``context.emit``. Its table in a trigger is checked by an
`ISettingsSchema`, most simply ``StructSchema`` of a ``msgspec.Struct``. ``harn.testing.connectors`` holds the suite
that it should pass.
"""

from __future__ import annotations

from harn.connectors.interfaces import (
    CREDENTIALS,
    PUBLIC,
    IConnector,
    IConnectorPlugin,
    IEarlyReceiver,
    IReceiver,
    IScheme,
)
from harn.connectors.model import (
    ConnectorBinding,
    ConnectorContext,
    Events,
    Normalized,
    NormalizedEvent,
    Reject,
    Respond,
)
from harn.connectors.signatures import Encoding, HmacScheme, Part
from harn.connectors.signed import Example, Message, SignedProvider, always, header, member
from harn.errors import (
    CredentialsRejected,
    GateShut,
    MediaTypeUnsupported,
    PayloadInvalid,
    SignatureMismatch,
    SignatureMissing,
    SignatureStale,
    StageFailed,
)
from harn.manifest.interfaces import ISettingsSchema, SettingProblem
from harn.manifest.schema import StructSchema
from harn.model.event import UNSIGNED, VERIFIED
from harn.model.inbound import InboundRequest

__all__ = [
    "CREDENTIALS",
    "PUBLIC",
    "UNSIGNED",
    "VERIFIED",
    "ConnectorBinding",
    "ConnectorContext",
    "CredentialsRejected",
    "Encoding",
    "Events",
    "Example",
    "GateShut",
    "HmacScheme",
    "IConnector",
    "IConnectorPlugin",
    "IEarlyReceiver",
    "IReceiver",
    "IScheme",
    "ISettingsSchema",
    "InboundRequest",
    "MediaTypeUnsupported",
    "Message",
    "Normalized",
    "NormalizedEvent",
    "Part",
    "PayloadInvalid",
    "Reject",
    "Respond",
    "SettingProblem",
    "SignatureMismatch",
    "SignatureMissing",
    "SignatureStale",
    "SignedProvider",
    "StageFailed",
    "StructSchema",
    "always",
    "header",
    "member",
]
