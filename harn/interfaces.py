"""
The public names for authors of plugins: connectors, where events come from, and destinations, where deliveries go.

A plugin is an object in a module under ``harn/plugins/``. A connector's provides `IConnectorPlugin`. For a sender that
signs by an HMAC it is a `SignedProvider`: declarations, and no code. Any other makes, for requests, an `IReceiver`; for
events that it starts itself an `IConnector` that calls ``context.emit``. Its table in a trigger is checked by an
`ISettingsSchema`, most simply ``StructSchema`` of a ``msgspec.Struct``. ``harn.testing.connectors`` holds the suite
that it should pass.

A destination's plugin provides `IDestinationPlugin` and makes, for each target, an `IDestination`, whose ``begin``
takes an `OutgoingDelivery` and gives `Returned`. Its suite is in ``harn.testing.destinations``.
"""

from __future__ import annotations

from harn.connectors.credentials import BasicScheme, TokenScheme
from harn.connectors.interfaces import (
    CREDENTIALS,
    PUBLIC,
    ConnectorBinding,
    ConnectorContext,
    Events,
    IConnector,
    IConnectorPlugin,
    IEarlyReceiver,
    IReceiver,
    IRequestScheme,
    IScheme,
    Normalized,
    NormalizedEvent,
    Reject,
    Respond,
)
from harn.connectors.public_keys import Algorithm, PublicKeyScheme
from harn.connectors.receivers import (
    ConfiguredProvider,
    Example,
    Message,
    SignedProvider,
    always,
    dotted,
    first_of,
    header,
    member,
)
from harn.connectors.signatures import Encoding, HmacScheme, Part, TimeFormat
from harn.destinations.interfaces import DestinationContext, IDestination, IDestinationPlugin
from harn.errors import (
    AttemptFailed,
    CallInterrupted,
    CredentialsRejected,
    DestinationFailed,
    GateShut,
    HandlerRejected,
    HandlerRetryAfter,
    MediaTypeUnsupported,
    PayloadInvalid,
    SignatureMismatch,
    SignatureMissing,
    SignatureStale,
    StageFailed,
)
from harn.manifest.interfaces import ISettingsSchema, SettingProblem
from harn.manifest.tables import StructSchema
from harn.model.event import UNSIGNED, VERIFIED
from harn.model.exchange import InboundRequest, OutgoingDelivery, Returned

__all__ = [
    "CREDENTIALS",
    "PUBLIC",
    "UNSIGNED",
    "VERIFIED",
    "Algorithm",
    "AttemptFailed",
    "BasicScheme",
    "CallInterrupted",
    "ConfiguredProvider",
    "ConnectorBinding",
    "ConnectorContext",
    "CredentialsRejected",
    "DestinationContext",
    "DestinationFailed",
    "Encoding",
    "Events",
    "Example",
    "GateShut",
    "HandlerRejected",
    "HandlerRetryAfter",
    "HmacScheme",
    "IConnector",
    "IConnectorPlugin",
    "IDestination",
    "IDestinationPlugin",
    "IEarlyReceiver",
    "IReceiver",
    "IRequestScheme",
    "IScheme",
    "ISettingsSchema",
    "InboundRequest",
    "MediaTypeUnsupported",
    "Message",
    "Normalized",
    "NormalizedEvent",
    "OutgoingDelivery",
    "Part",
    "PayloadInvalid",
    "PublicKeyScheme",
    "Reject",
    "Respond",
    "Returned",
    "SettingProblem",
    "SignatureMismatch",
    "SignatureMissing",
    "SignatureStale",
    "SignedProvider",
    "StageFailed",
    "StructSchema",
    "TimeFormat",
    "TokenScheme",
    "always",
    "dotted",
    "first_of",
    "header",
    "member",
]
