"""
Any sender that signs by an HMAC (the manifest says what is signed, and where the signature is), that sends a token in a
header or in the query of the URL, or that sends a user and a password (HTTP's Basic authentication).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from harn.auth.credentials import TOLERANCE
from harn.connectors.credentials import BasicScheme, TokenScheme
from harn.connectors.messages import First, Header, Member, first_of, header, member
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider
from harn.connectors.request_hmac import KeyEncoding, RequestHmac, read_template
from harn.connectors.signatures import Encoding, TimeFormat

_HEADER, _BODY = "header:", "body:"

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern="^[!-~]+$")]
"""The name of a header or of a parameter of the query."""


class FactPlaces(Struct, frozen=True, kw_only=True):
    """Keys of a table that says where the facts of an event are."""

    kind: Annotated[
        str | None,
        Meta(
            description="Where the kind of an event is: `header:X-Event`, `body:event.type`, or one kind for all;"
            " default: the body's `type`, else its `event`, else `webhook`."
        ),
    ] = None
    id: Annotated[
        str | None,
        Meta(
            description="Where the identifier of a delivery is: `header:X-Delivery` or `body:id`; default: the body's"
            " `id`, else a digest of the body."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.id is not None and fact_of(self.id) is None:
            raise ValueError(f'id must begin with header: or body:, got "{self.id[:40]}"')

    def kind_fact(self) -> First:
        """Return the fact that is the kind."""
        if self.kind is None:
            return first_of(member("type"), member("event"), otherwise="webhook")
        found = fact_of(self.kind)
        return first_of(otherwise=self.kind) if found is None else first_of(found)

    def identity_fact(self) -> Header | Member:
        """Return the fact that is the identifier."""
        found = None if self.id is None else fact_of(self.id)
        return member("id") if found is None else found


def fact_of(place: str) -> Header | Member | None:
    """Return the fact of a place; None where the text is not a place."""
    if place.startswith(_HEADER) and len(place) > len(_HEADER):
        return header(place.removeprefix(_HEADER))
    if place.startswith(_BODY) and len(place) > len(_BODY):
        return member(*place.removeprefix(_BODY).split("."))
    return None


class HmacSettings(FactPlaces, frozen=True, kw_only=True):
    """``[triggers.hmac]``."""

    header: Annotated[Name, Meta(description="The header with the signature, for example `X-Signature`.")]
    signed: Annotated[
        str,
        Meta(
            description="What is signed, with `{body}`, `{timestamp}`, `{method}`, `{path}` (with its query),"
            " `{query}`, `{url}` and `{header:X-Name}` in it; other text stands for itself: `v0:{timestamp}:{body}`."
        ),
    ] = "{body}"
    algorithm: Literal["sha256", "sha1", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    prefix: Annotated[str, Meta(description="Text before the digest, for example `sha256=`.")] = ""
    separator: Annotated[str, Meta(description="Text between several signatures in the header, for example `,`.")] = ""
    timestamp_header: Annotated[Name | None, Meta(description="The header with the time that is signed.")] = None
    timestamp_entry: Annotated[
        str | None,
        Meta(description="For a header that is a list as `t=1,v1=ab`: the name of the time's entry, here `t`."),
    ] = None
    signature_entry: Annotated[str, Meta(description="And the name of the signature's.")] = "v1"
    timestamp_format: Literal["seconds", "milliseconds", "rfc3339"] = "seconds"
    timestamp_tolerance_secs: Annotated[
        int, Meta(ge=0, description="How far the signed time may be from now, in seconds either way.")
    ] = TOLERANCE
    key_encoding: Annotated[KeyEncoding, Meta(description="How the key is written in the secret.")] = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        pieces = read_template(self.signed)
        if "body" not in pieces:
            raise ValueError("signed must have {body}, or any body would be accepted with a signature that was seen")
        if self.timestamp_header is not None and self.timestamp_entry is not None:
            raise ValueError("timestamp_header and timestamp_entry are both given: keep one of them")
        timed = self.timestamp_header is not None or self.timestamp_entry is not None
        if timed is not ("timestamp" in pieces):
            said = "has {timestamp}, so timestamp_header or timestamp_entry must say where it is"
            raise ValueError(f"signed {said}" if not timed else "signed must have {timestamp}, or no time is verified")

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        pieces = read_template(self.signed)
        scheme = RequestHmac(
            name="hmac",
            header=self.header,
            signed=RequestHmac.parts(pieces),
            pieces=pieces,
            prefix=self.prefix,
            separator=self.separator,
            timestamp_header=self.timestamp_header,
            entries=None if self.timestamp_entry is None else (self.timestamp_entry, self.signature_entry),
            algorithm=self.algorithm,
            encoding=Encoding(self.encoding),
            time_format=TimeFormat(self.timestamp_format),
            key_encoding=self.key_encoding,
        )
        return SignedProvider(
            provider="hmac",
            home=__name__,
            scheme=scheme,
            tolerance=self.timestamp_tolerance_secs,
            read=Message.any_of,
            kind=self.kind_fact(),
            identity=self.identity_fact(),
            headers={"content_type": "content-type"},
            example=Example(body=b'{"type": "example", "id": "1"}'),
        )


HMAC = ConfiguredProvider(
    provider="hmac", home=__name__, settings=HmacSettings, example_settings={"header": "X-Signature"}
)


BASIC_SECRETS = ("user", "password")


class BasicSettings(FactPlaces, frozen=True, kw_only=True):
    """``[triggers.basic]``."""

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        return SignedProvider(
            provider="basic",
            home=__name__,
            scheme=BasicScheme(),
            secrets=BASIC_SECRETS,
            read=Message.any_of,
            kind=self.kind_fact(),
            identity=self.identity_fact(),
            headers={"content_type": "content-type"},
            # For senders that send the password only when they are asked for it.
            final=b'WWW-Authenticate: Basic realm="harn"\r\n',
            example=Example(body=b'{"type": "example", "id": "1"}'),
        )


BASIC = ConfiguredProvider(provider="basic", home=__name__, settings=BasicSettings, required_secrets=BASIC_SECRETS)


class TokenSettings(FactPlaces, frozen=True, kw_only=True):
    """``[triggers.token]``."""

    header: Annotated[
        Name | None,
        Meta(
            description="The header with the token, with or without `Bearer` before it; default: `Authorization`,"
            " unless `query` is given.",
        ),
    ] = None
    query: Annotated[
        Name | None,
        Meta(
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
