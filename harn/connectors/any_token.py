"""Any sender that sends a token in a header, or in the query of the URL."""

from __future__ import annotations

from typing import Annotated

import msgspec

from harn.connectors.credentials import TokenScheme
from harn.connectors.places import Name, Places
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider


class TokenSettings(Places, frozen=True, kw_only=True):
    """``[triggers.token]``."""

    header: Annotated[
        Name | None,
        msgspec.Meta(
            description="The header with the token, with or without `Bearer` before it; default: `Authorization`,"
            " unless `query` is given.",
        ),
    ] = None
    query: Annotated[
        Name | None,
        msgspec.Meta(
            description="The parameter of the URL with the token; what stands in a URL is logged by proxies.",
        ),
    ] = None

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        header = self.header if self.header is not None or self.query is not None else "Authorization"
        return SignedProvider(
            provider="token",
            home=__name__,
            scheme=TokenScheme(header=header, query=self.query),
            secrets=("token",),
            read=Message.any_of,
            kind=self.kind_fact(),
            identity=self.identity_fact(),
            headers={"content_type": "content-type"},
            example=Example(body=b'{"type": "example", "id": "1"}'),
        )


TOKEN = ConfiguredProvider(provider="token", home=__name__, settings=TokenSettings, required_secrets=("token",))
