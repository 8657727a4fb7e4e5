"""
Any sender that signs by an HMAC (the manifest says what is signed, and where the signature is), that sends a token in a
header or in the query of the URL, or that sends a user and a password (HTTP's Basic authentication).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.json import encode

from harn.auth.credentials import TOLERANCE
from harn.connectors.bodies import LONGEST_WORD, word
from harn.connectors.credentials import BasicScheme, TokenScheme
from harn.connectors.messages import First, Header, Member, first_of, header, member
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider
from harn.connectors.request_hmac import FIELD_NAME, KeyEncoding, RequestHmac, is_token, read_template
from harn.connectors.signatures import Encoding, TimeFormat
from harn.manifest.interfaces import SettingProblem
from harn.manifest.vocabulary import fault_of_event

_HEADER, _BODY = "header:", "body:"

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern="^[!-~]+$", title="the name of a parameter")]
"""The name of a parameter of the query."""
HeaderName = Annotated[str, Meta(min_length=1, max_length=200, pattern=f"^{FIELD_NAME}$", title="the name of a header")]
Printable = Annotated[str, Meta(max_length=200, pattern="^[ -~]*$", title="at most 200 characters of ASCII")]
"""Text in a header: of ASCII."""
EntryName = Annotated[
    str, Meta(min_length=1, max_length=200, pattern="^[!-+.-<>-~-]+$", title="a name of ASCII without = and ,")
]
"""The name of an entry in a header's list: without ``=`` and commas."""


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

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values."""
        found = []
        if self.kind is not None and fact_of(self.kind) is None and (fault := _fault_of_kind(self.kind)) is not None:
            found.append(SettingProblem(key="kind", message=fault[0], hint=fault[1]))
        if self.id is not None and fact_of(self.id) is None:
            found.append(
                SettingProblem(
                    key="id", message=f'must begin with header: or body:, got "{self.id[:40]}"', hint=_PLACES
                )
            )
        return found

    def kind_fact(self) -> First:
        """Return the fact that is the kind."""
        if self.kind is None:
            return first_of(member("type"), member("event"), otherwise="webhook")
        found = fact_of(self.kind)
        return first_of(otherwise=self.kind) if found is None else first_of(found)

    def example_request(self) -> Example:
        """Return a request that has kind and identifier where these settings look for them."""
        headers = {"content-type": "application/json"}
        document: dict[str, Any] = {"type": "example", "id": "1"}
        places = (self.kind and fact_of(self.kind), self.id and fact_of(self.id))
        for place, value in zip(places, ("example", "1"), strict=True):
            if place:
                place.put(value, headers, document)
        return Example(body=encode(document), headers=headers)

    def identity_fact(self) -> Header | Member:
        """Return the fact that is the identifier."""
        found = None if self.id is None else fact_of(self.id)
        return member("id") if found is None else found


_PLACES = "write for example header:X-Event, or body:event.type"


def fact_of(place: str) -> Header | Member | None:
    """Return the fact of a place; None where the text is not a place."""
    if place.startswith(_HEADER) and is_token(place.removeprefix(_HEADER)):
        return header(place.removeprefix(_HEADER))
    steps = place.removeprefix(_BODY).split(".")
    return member(*steps) if place.startswith(_BODY) and all(steps) else None


def _fault_of_kind(text: str) -> tuple[str, str] | None:
    """Return the fault of a kind that is the same for all events, and a hint."""
    if text.startswith((_HEADER, _BODY)):
        return f'names no place, got "{text[:40]}"', _PLACES
    if not word(text):
        return f"must have from 1 to {LONGEST_WORD} characters, got {len(text)}", ""
    if "*" in text:
        return f'must be one kind, got "{text[:40]}"', "patterns of kinds are for match.events"
    return fault_of_event(text)


_TIMED = "sign {timestamp}, and say where it is, or remove it"


class HmacSettings(FactPlaces, frozen=True, kw_only=True):
    """``[triggers.hmac]``."""

    header: Annotated[HeaderName, Meta(description="The header with the signature, for example `X-Signature`.")]
    signed: Annotated[
        str,
        Meta(
            description="What is signed, with `{body}`, `{timestamp}`, `{method}`, `{path}` (with its query),"
            " `{query}`, `{url}` and `{header:X-Name}` in it; other text stands for itself: `v0:{timestamp}:{body}`."
        ),
    ] = "{body}"
    algorithm: Literal["sha256", "sha1", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64", "base64url"] = "hex"
    prefix: Annotated[Printable, Meta(description="Text before the digest, for example `sha256=`.")] = ""
    separator: Annotated[
        Printable, Meta(description="Text between several signatures in the header, for example `,`.")
    ] = ""
    timestamp_header: Annotated[HeaderName | None, Meta(description="The header with the time that is signed.")] = None
    timestamp_entry: Annotated[
        EntryName | None,
        Meta(description="For a header that is a list as `t=1,v1=ab`: the name of the time's entry, here `t`."),
    ] = None
    signature_entry: Annotated[EntryName, Meta(description="And the name of the signature's.")] = "v1"
    timestamp_format: Literal["seconds", "milliseconds", "rfc3339"] = "seconds"
    timestamp_tolerance_secs: Annotated[
        int, Meta(ge=0, description="How far the signed time may be from now, in seconds either way.")
    ] = TOLERANCE
    key_encoding: Annotated[KeyEncoding, Meta(description="How the key is written in the secret.")] = "text"

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values."""
        return [*super().problems(), *self._problems_of_signed(), *self._problems_of_unused()]

    def _problems_of_signed(self) -> Iterator[SettingProblem]:
        try:
            pieces = read_template(self.signed)
        except ValueError as error:
            yield SettingProblem(key="signed", message=str(error))
            return
        if "body" not in pieces:
            said = "must have {body}, or any body would be accepted with a signature that was seen"
            yield SettingProblem(key="signed", message=said)
        if self.timestamp_header is not None and self.timestamp_entry is not None:
            yield SettingProblem(
                key="timestamp_entry", message="is given, and so is timestamp_header", hint="keep one of them"
            )
        if self.is_timed and "timestamp" not in pieces:
            yield SettingProblem(key="signed", message="must have {timestamp}, or no time is verified")
        elif "timestamp" in pieces and not self.is_timed:
            said = "has {timestamp}, so timestamp_header or timestamp_entry must say where it is"
            yield SettingProblem(key="signed", message=said)

    def _problems_of_unused(self) -> Iterator[SettingProblem]:
        """Yield a problem for each key that changes nothing: whoever wrote it relies on it."""
        if not self.is_timed:
            if self.timestamp_tolerance_secs != TOLERANCE:
                yield SettingProblem(
                    key="timestamp_tolerance_secs", message="counts only where a time is signed", hint=_TIMED
                )
            if self.timestamp_format != "seconds":
                yield SettingProblem(key="timestamp_format", message="counts only where a time is signed", hint=_TIMED)
        if self.timestamp_entry is None:
            if self.signature_entry != "v1":
                hint = "name the entry of the time, or remove it"
                yield SettingProblem(key="signature_entry", message="counts only with timestamp_entry", hint=hint)
            return
        if self.timestamp_entry == self.signature_entry:
            yield SettingProblem(
                key="timestamp_entry", message=f'must not be signature_entry, got "{self.timestamp_entry}" twice'
            )
        if self.separator:
            hint = "the entries of a list stand between commas; remove it"
            yield SettingProblem(key="separator", message="counts only without timestamp_entry", hint=hint)

    @property
    def is_timed(self) -> bool:
        """Whether the table says where a signed time is."""
        return self.timestamp_header is not None or self.timestamp_entry is not None

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
            example=self.example_request(),
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
            example=self.example_request(),
        )


BASIC = ConfiguredProvider(provider="basic", home=__name__, settings=BasicSettings, required_secrets=BASIC_SECRETS)


class TokenSettings(FactPlaces, frozen=True, kw_only=True):
    """``[triggers.token]``."""

    header: Annotated[
        HeaderName | None,
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
            example=self.example_request(),
        )


TOKEN = ConfiguredProvider(provider="token", home=__name__, settings=TokenSettings, required_secrets=("token",))
