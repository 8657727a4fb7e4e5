"""
TLS of the listener: a certificate that can be replaced while connections are open, and connections that are answered
after the client has sent ``close_notify``.
"""

# Names are those of twisted.protocols.tls, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from msgspec import Struct
from OpenSSL.crypto import FILETYPE_PEM, X509, PKey, load_certificate, load_privatekey
from OpenSSL.SSL import VERIFY_PEER, Connection, Context
from OpenSSL.SSL import Error as SslError
from twisted.internet.interfaces import IHalfCloseableProtocol, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import ListenerUnusable
from harn.files import read_regular
from harn.reload.inputs import ICertificateFiles

LARGEST = 1024 * 1024
"""The largest accepted file (bytes): chains and keys are far smaller, so a larger file is a mistake."""
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def load_context(certificate_path: str, key_path: str) -> Context:
    """
    Return a context with the certificate chain and key of two PEM files. Blocks: call it in a thread.

    :param certificate_path: the file of the chain: the server's certificate, then the intermediate ones.
    :param key_path: the file of the private key.
    :raises ListenerUnusable: a file cannot be used; the message names it, the cause, and what to do.
    """
    chain = _load_chain(certificate_path)
    key = _load_key(key_path)
    context = CertificateOptions(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        made: Context = context.getContext()
        made.check_privatekey()
    except SslError:
        raise ListenerUnusable(
            f"the key in {key_path} does not belong to the certificate in {certificate_path}; give --cert and --key "
            "of one pair"
        ) from None
    return made


@implementer(IOpenSSLServerConnectionCreator)
class TlsContext:
    """
    Makes each new TLS connection with the current context; open connections keep theirs.

    :ivar asks_clients: whether new clients are asked for a certificate. The handshake accepts any certificate, or none;
        see `harn.listener.peers`. Twisted disables session resumption, so each handshake has the whole chain.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.asks_clients = False

    def replace(self, context: Context) -> None:
        """Use another context from the next handshake on."""
        self._context = context

    def expires_at(self) -> float | None:
        """Return when the certificate of the current context expires (seconds, Unix); None if it has none."""
        certificate = Connection(self._context, None).get_certificate()
        return None if certificate is None else certificate.to_cryptography().not_valid_after_utc.timestamp()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:  # noqa: N802, N803 - twisted's
        """Make the OpenSSL connection of one client."""
        connection = self.plain_connection()
        if self.asks_clients:
            connection.set_verify(VERIFY_PEER, _accept_any)
        return connection

    def plain_connection(self) -> Connection:
        """Make the OpenSSL connection of one client, without asking it for a certificate."""
        return Connection(self._context, None)


@implementer(IOpenSSLServerConnectionCreator)
class OwnPagesTls(Struct, frozen=True):
    """Makes the connections of the server's own pages with the current context, without asking for certificates."""

    context: TlsContext

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:  # noqa: N802, N803 - twisted's
        """Make the OpenSSL connection of one client."""
        return self.context.plain_connection()


def _accept_any(*_: object) -> bool:
    return True


class TlsTransport(BufferingTLSTransport):
    """
    A TLS connection that is answered even after the client has sent ``close_notify``, as TLS 1.3 allows.

    Twisted would close both directions then: it calls `_shutdownTLS`, then `_tlsShutdownFinished` with None. While the
    connection is not being closed, it makes these calls only when ``close_notify`` arrives.
    """

    _client_ends = False

    def _shutdownTLS(self) -> None:  # noqa: N802 - twisted's name
        if self.disconnecting:
            super()._shutdownTLS()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:  # noqa: N802 - twisted's name
        if reason is not None or self.disconnecting:
            super()._tlsShutdownFinished(reason)
        else:
            self._client_ends = True
            self._lostTLSConnection = True  # this ends the loop that reads

    def _flushReceiveBIO(self) -> None:  # noqa: N802 - twisted's name
        super()._flushReceiveBIO()
        if self._client_ends:
            self._client_ends = self._lostTLSConnection = False
            wrapped = IHalfCloseableProtocol(self.wrappedProtocol, None)
            if wrapped is None:
                self.loseConnection()
            else:
                wrapped.readConnectionLost()


class TlsFactory(TLSMemoryBIOFactory):
    """Makes a `TlsTransport` of each connection."""

    protocol = TlsTransport


def _read(path: str, what: str) -> bytes:
    try:
        return read_regular(path, LARGEST)
    except OSError as error:
        raise ListenerUnusable(f"the {what} {path} cannot be read: {error.strerror}") from None


def _load_chain(path: str) -> list[X509]:
    text = _read(path, "certificate")
    pieces = [piece.partition(_BEGIN)[2] for piece in text.split(_END)[:-1]]
    if not pieces:
        raise ListenerUnusable(f"{path} holds no PEM certificate ({_BEGIN.decode()}); give --cert a PEM chain")
    chain = []
    for number, piece in enumerate(pieces, start=1):
        try:
            chain.append(load_certificate(FILETYPE_PEM, _BEGIN + piece + _END + b"\n"))
        except Exception:  # pyOpenSSL's own Error, or one of cryptography's
            raise ListenerUnusable(
                f"certificate number {number} in {path} is damaged; give --cert a PEM chain"
            ) from None
    return chain


def _load_key(path: str) -> PKey:
    text = _read(path, "key")
    if b"ENCRYPTED" in text:
        raise ListenerUnusable(
            f"the key in {path} is encrypted, and the server cannot prompt for its passphrase; "
            "decrypt it, for example with openssl pkey"
        )
    if b"PRIVATE KEY-----" not in text:
        raise ListenerUnusable(f"{path} holds no PEM private key; give --key one")
    try:
        return load_privatekey(FILETYPE_PEM, text, b"")
    except Exception:  # pyOpenSSL's own Error, or one of cryptography's
        raise ListenerUnusable(f"the key in {path} is damaged; give --key a PEM private key") from None


@implementer(ICertificateFiles)
class CertificateFiles(Struct, frozen=True):
    """The files of ``--cert`` and ``--key``."""

    certificate: str
    key: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See `ICertificateFiles.paths`."""
        return self.certificate, self.key

    def load(self) -> Context:
        """See `ICertificateFiles.load`."""
        return load_context(self.certificate, self.key)
