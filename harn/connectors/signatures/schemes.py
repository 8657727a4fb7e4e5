"""The schemes by the names that ``signature_scheme`` gives them, all called alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from harn.connectors.signatures import github, slack, standard, stripe

Headers = Mapping[str, str]


@frozen
class Scheme:
    """
    One scheme.

    :ivar key: from a configured secret to the key; ValueError where it cannot be one.
    :ivar families: sets of headers (names in lower case) of which a request must have one whole.
    :ivar verify: ``verify(keys, headers, body, now, tolerance)``: takes its headers (names in lower case) and raises
        what the scheme's module raises.
    """

    name: str
    key: Callable[[bytes], bytes]
    families: Sequence[tuple[str, ...]]
    verify: Callable[[Sequence[bytes], Headers, bytes, float, int], None]

    def check_headers(self, headers: Headers) -> None:
        """
        Check what the headers alone tell, before the body is there.

        :raises SignatureMissing: the scheme's headers are not all there.
        """
        if not any(all(name in headers for name in family) for family in self.families):
            self.verify((), headers, b"", 0.0, 0)  # says which one is missing


def _as_it_is(secret: bytes) -> bytes:
    if not secret:
        raise ValueError("it is empty")
    return secret


def _verify_standard(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
    # All three of one family: a mixture is no message of anybody's.
    family = "webhook" if "webhook-signature" in headers or "svix-signature" not in headers else "svix"
    parts = (headers.get(f"{family}-{part}") for part in ("id", "timestamp", "signature"))
    message_id, timestamp, signatures = parts
    standard.verify(keys, message_id, timestamp, body, signatures, now, tolerance)


def _verify_stripe(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
    stripe.verify(keys, body, headers.get(stripe.HEADER), now, tolerance)


def _verify_github(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
    github.verify(keys, body, headers.get(github.HEADER))


def _verify_slack(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
    slack.verify(keys, headers.get(slack.TIMESTAMP_HEADER), body, headers.get(slack.HEADER), now, tolerance)


_STANDARD = tuple(
    tuple(f"{family}-{part}" for part in ("id", "timestamp", "signature")) for family in ("webhook", "svix")
)

SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("standard", standard.decode_secret, _STANDARD, _verify_standard),
        Scheme("stripe", _as_it_is, ((stripe.HEADER,),), _verify_stripe),
        Scheme("github", _as_it_is, ((github.HEADER,),), _verify_github),
        Scheme("slack", _as_it_is, ((slack.TIMESTAMP_HEADER, slack.HEADER),), _verify_slack),
    )
}
