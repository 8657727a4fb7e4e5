"""Certificates: what is wrong with them, and that one can be replaced."""

from __future__ import annotations

import datetime
import os
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.SSL import TLS1_1_VERSION, TLS1_VERSION, Context, SSLv23_METHOD
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from harn.errors import ListenerUnusable
from harn.listener.endpoint import Bind, listen
from harn.listener.tls import TlsContext, load_context
from harn.testing.clients import SocketClient, parse_answers
from tests.listener.world import World, signed_post


def make_pair(directory: str, name: str = "harn.test", passphrase: bytes | None = None) -> tuple[str, str]:
    """Write a self-signed certificate and its key; give both paths."""
    os.makedirs(directory, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    hidden: Any = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    paths = os.path.join(directory, f"{name}.crt"), os.path.join(directory, f"{name}.key")
    with open(paths[0], "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    with open(paths[1], "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    return paths


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.certificate, self.key = make_pair(self.directory)

    def write(self, name: str, data: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def assert_unusable(self, certificate: str, key: str, *words: str) -> None:
        error = str(self.assertRaises(ListenerUnusable, load_context, certificate, key))
        for each in words:
            self.assertIn(each, error)

    def test_usable(self) -> None:
        """A pair makes a context; so does a chain with text around it."""
        self.assertIsInstance(load_context(self.certificate, self.key), Context)
        other, _ = make_pair(self.directory, "other")
        with open(self.certificate, "rb") as first, open(other, "rb") as second:
            chain = self.write("chain", b"Subject: x\n" + first.read() + b"\n\nmore\n" + second.read())
        self.assertIsInstance(load_context(chain, self.key), Context)

    def test_missing(self) -> None:
        """A file that is not there is named."""
        self.assert_unusable("/nowhere.crt", self.key, "the certificate /nowhere.crt", "No such file")
        self.assert_unusable(self.certificate, "/nowhere.key", "the key /nowhere.key", "No such file")

    def test_no_file(self) -> None:
        """A pipe is not waited for, and a device not read to an end that it may not have."""
        pipe = os.path.join(self.directory, "pipe")
        os.mkfifo(pipe)
        for path in (pipe, "/dev/zero"):
            self.assert_unusable(path, self.key, f"the certificate {path} cannot be read", "not a regular file")
            self.assert_unusable(self.certificate, path, f"the key {path} cannot be read", "not a regular file")
        large = self.write("large", b"x" * (1024 * 1024 + 1))
        self.assert_unusable(large, self.key, "larger than 1 MiB")

    def test_no_pem(self) -> None:
        """A file that holds something else is named, with what belongs there."""
        junk = self.write("junk", b"junk")
        self.assert_unusable(junk, self.key, "junk holds no PEM certificate", "--cert")
        self.assert_unusable(self.certificate, junk, "junk holds no PEM private key", "--key")

    def test_damaged(self) -> None:
        """PEM that cannot be read is damaged; which certificate of a chain is said."""
        with open(self.certificate, "rb") as file:
            chain = self.write("chain", file.read() + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.assert_unusable(chain, self.key, "certificate number 2 in", "damaged")
        key = self.write("key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        self.assert_unusable(self.certificate, key, "damaged")

    def test_mismatch(self) -> None:
        """A key of another certificate is reported, with both files."""
        _, other = make_pair(self.directory, "other")
        self.assert_unusable(self.certificate, other, "does not belong to", self.certificate, other)

    def test_encrypted(self) -> None:
        """An encrypted key is reported, and no passphrase is asked for."""
        certificate, key = make_pair(self.directory, "hidden", b"passphrase")
        self.assert_unusable(certificate, key, "is encrypted", "openssl pkey")


class ServedCase(TestCase):
    """A listener on a socket of this machine, and clients of it."""

    def setUp(self) -> None:
        self.world = World(clock=reactor)
        self.first = make_pair(self.mktemp(), "first")
        self.second = make_pair(self.mktemp(), "second")
        self.tls = TlsContext(load_context(*self.first))
        self.listening = listen(reactor, Bind("127.0.0.1", 0), self.world.site, self.tls)

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.listening.port.stopListening()
        for channel in tuple(self.world.site.channels):
            channel.transport.abortConnection()
        while self.world.site.channels:
            await self.pause()
        self.world.site.doStop()

    def pause(self) -> Deferred[None]:
        """Run a turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned

    async def connect(self, context: Context, number: int | None = None) -> SocketClient:
        """Open a TLS connection that trusts anybody; ``number``: of another port than that of the listener."""
        factory = TLSMemoryBIOFactory(_Fixed(context), True, Factory.forProtocol(SocketClient), reactor)
        wrapped = await TCP4ClientEndpoint(reactor, "127.0.0.1", number or self.listening.bind.port).connect(factory)
        client = cast("ProtocolWrapper", wrapped).wrappedProtocol
        assert isinstance(client, SocketClient)
        return client

    def subject(self, client: SocketClient) -> str:
        transport: Any = client.transport
        return str(transport.getPeerCertificate().get_subject().CN)


class ServedTests(ServedCase):
    """Connections by TLS."""

    async def test_replaced(self) -> None:
        """A replaced certificate meets new connections; the open one continues with its own."""
        self.assertTrue(self.listening.url.startswith("https://"))
        old = await self.connect(CertificateOptions().getContext())
        old.send(signed_post("/hooks/gh"))
        self.assertEqual((await old.until_answers(1))[0].status, 200)
        self.tls.replace(load_context(*self.second))
        new = await self.connect(CertificateOptions().getContext())
        new.send(signed_post("/hooks/gh"))
        self.assertEqual((await new.until_answers(1))[0].status, 200)
        old.send(signed_post("/hooks/gh", Connection="close"))
        self.assertEqual((await old.until_answers(2))[1].status, 200)
        self.assertEqual((self.subject(old), self.subject(new)), ("first", "second"))
        await old.lost
        new.transport.abortConnection()  # type: ignore[union-attr]
        await new.lost

    async def test_half_closed(self) -> None:
        """A client that says that it will send no more (``close_notify``) gets its answers all the same."""
        self.world.store.writer.held = True
        client = await self.connect(CertificateOptions().getContext())
        client.send(signed_post("/hooks/gh") * 2)
        while not self.world.store.writer.has_work:
            await self.pause()
        transport: Any = client.transport
        transport.getHandle().shutdown()
        transport._flushSendBIO()
        (channel,) = self.world.site.channels
        while not channel._has_client_ended:
            await self.pause()
        self.world.store.writer.release()
        await client.lost
        self.assertEqual([answer.status for answer in parse_answers(bytes(client.data))], [200, 200])

    async def test_idle_client_that_ends(self) -> None:
        """A client that ends while nothing is asked is gone, in good order."""
        client = await self.connect(CertificateOptions().getContext())
        client.send(signed_post("/hooks/gh"))
        await client.until_answers(1)
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.lost
        while self.world.site.channels:
            await self.pause()

    async def test_old_versions(self) -> None:
        """A client that speaks nothing newer than TLS 1.1 is refused."""
        context = Context(SSLv23_METHOD)
        context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
        context.set_min_proto_version(TLS1_VERSION)
        context.set_max_proto_version(TLS1_1_VERSION)
        client = await self.connect(context)
        client.send(signed_post("/hooks/gh"))
        await client.lost
        self.assertIn("protocol version", str(client.reason))
        self.assertEqual(bytes(client.data), b"")


@implementer(IOpenSSLContextFactory)
class _Fixed:
    """Returns one context for every client."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def getContext(self) -> Context:
        return self.context
