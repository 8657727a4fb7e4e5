"""
The check of a sender's address and client certificate, if a trigger requires them.

The listener requests a certificate in each TLS handshake while any trigger has a ``client_ca``, and accepts every
certificate, or none. The certificate is then checked for each request, against the ``client_ca`` of its trigger.
"""

# The functions of pyOpenSSL that are called here are not all typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError
from OpenSSL.SSL import Connection
from twisted.logger import Logger

from harn.connectors.fetching import NotFetched
from harn.errors import AddressRefused, CredentialsRejected
from harn.listener.request import HarnRequest
from harn.manifest.model import TriggerSpec
from harn.model.display import list_some
from harn.model.networks import is_within, sender_of, split_sources

log = Logger(namespace="harn.listener")

_PURPOSES = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))


def check_peer(request: HarnRequest, spec: TriggerSpec) -> None:
    """
    Check the sender of a request against ``allow_from`` and ``client_ca`` of a trigger.

    :raises AddressRefused: see `check_address`.
    :raises NotFetched: see `check_address`.
    :raises CredentialsRejected: the client has shown no certificate of the required authority.
    """
    if spec.allow_from:
        check_address(request, spec.allow_from)
    if spec.client_ca is not None:
        try:
            check_certificate(_connection_of(request), request.site.client_authorities.get(spec.client_ca, b""))
        except CredentialsRejected:
            if request.channel is not None:
                # A client can show another certificate only in another handshake. A connection older than `client_ca`
                # was not asked for one, and its client may keep it open with further requests.
                request.channel.persistent = False
            raise


def warn_of_certificates(triggers: Iterable[TriggerSpec]) -> None:
    """Log the triggers that require client certificates. Called without TLS, when no client can show one."""
    names = [spec.id for spec in triggers if spec.client_ca is not None]
    log.warn(
        "client_ca of {triggers}: this server has no --cert and --key, so no client can show a certificate, and each"
        " request is answered 401",
        triggers=list_some(names),
    )


def check_address(request: HarnRequest, allowed: tuple[str, ...]) -> None:
    """
    Check that a request's sender has an allowed address. Trusted proxies say the address of the sender behind them.

    :param allowed: networks, and names of published lists of networks.
    :raises AddressRefused: the address is not allowed, or cannot be determined.
    :raises NotFetched: the address may be in a list that has not been fetched yet.
    """
    channel = request.channel
    peer = "" if channel is None else channel.address
    sender = sender_of(peer, request.headers.get("x-forwarded-for"), request.site.trusted_proxies)
    networks, names = split_sources(allowed)
    if sender is not None and is_within(sender, networks):
        return
    published = request.site.published
    lists = {name: None if published is None else published.networks(name) for name in names}
    if sender is not None and any(each is not None and is_within(sender, each) for each in lists.values()):
        return
    missing = [name for name, each in lists.items() if each is None]
    if sender is not None and missing:
        raise NotFetched(
            f"the addresses of {' and '.join(missing)} have not been fetched yet; send the request again",
            retry_after=30,
        )
    raise AddressRefused(f"requests from {sender or 'an unknown address'} are not accepted here")


def _connection_of(request: HarnRequest) -> Connection | None:
    transport: Any = None if request.channel is None else request.channel.transport
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    return handle if isinstance(handle, Connection) else None


def check_certificate(connection: Connection | None, authorities: bytes) -> None:
    """
    Check that a client has shown a client certificate that one of the authorities has issued.

    :param connection: the TLS connection; None without TLS.
    :param authorities: certificates of authorities (PEM).
    :raises CredentialsRejected: it has not; the message says why.
    """
    if connection is None:
        raise CredentialsRejected("a client certificate is required here, which needs a connection by TLS")
    shown = connection.get_peer_certificate()
    if shown is None:
        raise CredentialsRejected("a client certificate is required here")
    others = connection.get_peer_cert_chain() or []
    try:
        X509StoreContext(_store_of(authorities), shown, others).verify_certificate()
    except X509StoreContextError as error:
        raise CredentialsRejected(f"the client certificate is not accepted here: {error}") from None
    if not _is_for_clients(shown):
        raise CredentialsRejected("the client certificate is not accepted here: it is not one for clients")


@lru_cache(maxsize=64)
def _store_of(authorities: bytes) -> X509Store:
    store = X509Store()
    for each in x509.load_pem_x509_certificates(authorities) if authorities else ():
        store.add_cert(X509.from_cryptography(each))
    return store


def _is_for_clients(certificate: X509) -> bool:
    try:
        usage = certificate.to_cryptography().extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return True
    except ValueError:  # extensions that cannot be read
        return False
    return any(purpose in _PURPOSES for purpose in usage.value)
