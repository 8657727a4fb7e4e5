"""Any sender that sends a user and a password (HTTP's Basic authentication)."""

from __future__ import annotations

from harn.connectors.credentials import BasicScheme
from harn.connectors.places import Places
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider

SECRETS = ("user", "password")


class BasicSettings(Places, frozen=True, kw_only=True):
    """``[triggers.basic]``."""

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        return SignedProvider(
            provider="basic",
            home=__name__,
            scheme=BasicScheme(),
            secrets=SECRETS,
            read=Message.any_of,
            kind=self.kind_fact(),
            identity=self.identity_fact(),
            headers={"content_type": "content-type"},
            # For senders that send the password only when they are asked for it.
            final=b'WWW-Authenticate: Basic realm="harn"\r\n',
            example=Example(body=b'{"type": "example", "id": "1"}'),
        )


BASIC = ConfiguredProvider(provider="basic", home=__name__, settings=BasicSettings, required_secrets=SECRETS)
