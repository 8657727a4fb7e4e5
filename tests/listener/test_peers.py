"""Client certificates: asked for by the listener, required by triggers, over real TLS connections."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, cast

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import Context
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import CertificateOptions
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.admin_port import AdminAddress
from harn.listener.endpoint import Bind
from harn.listener.peers import warn_of_certificates
from harn.listener.tls import load_context
from harn.testing.clients import SocketClient, request_bytes
from tests.listener.test_ingest import IngestCase
from tests.listener.test_tls import ServedCase
from tests.listener.world import signed, signed_post
from tests.reload.world import World as ReloadWorld
from tests.reload.world import fake


@frozen
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def sign(name: str, issuer: Signed | None = None, *, is_ca: bool = False, days: int = 1, purpose: Any = None) -> Signed:
    """Make a certificate, signed by another one or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return Signed(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)


def client_context(shown: Signed | None, *others: Signed) -> Context:
    """Return the TLS context of a client that shows a certificate, with the intermediate ones."""
    if shown is None:
        return CertificateOptions().getContext()
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(cast("Any", shown.key)),
        certificate=X509.from_cryptography(shown.certificate),
        extraCertChain=[X509.from_cryptography(each.certificate) for each in others],
    ).getContext()


class CertificateTests(ServedCase):
    """A listener with triggers that require certificates of an authority."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = sign("authority", is_ca=True)
        self.addCleanup(self.world.site.refusals.close)
        self.tls.asks_clients = True
        self.world.site.client_authorities = {"ca.pem": self.authority.pem}
        self.world.serve(2, self.world.gh, self.world.trigger("x", "/x", client_ca="ca.pem"))

    async def status(self, shown: Signed | None, *others: Signed, path: str = "/x") -> int:
        """Return how a request of a client with a certificate is answered."""
        client = await self.connect(client_context(shown, *others))
        client.send(signed_post(path, Connection="close"))
        status = (await client.until_answers(1))[0].status
        await client.lost
        return status

    async def test_required(self) -> None:
        """Certificates of the authority are accepted, also through an intermediate one; without one it is 401."""
        between = sign("between", self.authority, is_ca=True)
        self.assertEqual(await self.status(sign("client", self.authority)), 200)
        self.assertEqual(await self.status(sign("client", between), between), 200)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        self.assertEqual(await self.status(sign("client", self.authority, purpose=purpose)), 200)
        self.assertEqual(await self.status(None), 401)

    async def test_refused(self) -> None:
        """Any other certificate is 401: self-signed, of another authority, expired, for servers, without its chain."""
        other = sign("authority", is_ca=True)
        not_an_authority = sign("client", self.authority)
        between = sign("between", self.authority, is_ca=True)
        for shown in (
            sign("client"),
            sign("client", other),
            sign("client", self.authority, days=-1),
            sign("client", self.authority, purpose=ExtendedKeyUsageOID.SERVER_AUTH),
            sign("client", between),
        ):
            self.assertEqual(await self.status(shown), 401)
        self.assertEqual(await self.status(sign("client", not_an_authority), not_an_authority), 401)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_other_triggers(self) -> None:
        """A trigger without an authority accepts requests with any certificate, and with none."""
        self.assertEqual(await self.status(None, path="/hooks/gh"), 200)
        self.assertEqual(await self.status(sign("client"), path="/hooks/gh"), 200)

    async def test_changed(self) -> None:
        """Another authority counts from the next request on; a listener that no longer asks gets no certificate."""
        shown = sign("client", self.authority)
        self.assertEqual(await self.status(shown), 200)
        other = sign("other", is_ca=True)
        self.world.site.client_authorities = {"ca.pem": other.pem}
        self.assertEqual(await self.status(shown), 401)
        self.assertEqual(await self.status(sign("client", other)), 200)
        self.world.site.client_authorities = {}
        self.assertEqual(await self.status(shown), 401)
        self.tls.asks_clients = False
        self.world.site.client_authorities = {"ca.pem": self.authority.pem}
        self.assertEqual(await self.status(shown), 401)

    async def test_own_pages(self) -> None:
        """The address of the server's own pages asks for no certificate, and shows the current one of the server."""
        port = AdminAddress(reactor, Bind("127.0.0.1", 0), self.world.site)
        self.addCleanup(lambda: maybeDeferred(port.close))
        port.open(self.tls)
        port.resume()
        own = int(port.url.rpartition(":")[2])
        context = client_context(sign("client", self.authority))
        for number, shown in ((self.listening.bind.port, True), (own, False)):
            await self.connected(context, number)
            (channel,) = self.world.site.channels
            self.assertEqual(channel.transport.getPeerCertificate() is not None, shown)
            channel.transport.abortConnection()
            while self.world.site.channels:
                await self.pause()
        self.tls.replace(load_context(*self.second))
        self.assertEqual(self.subject(await self.connected(context, own)), "second")

    async def connected(self, context: Context, number: int) -> SocketClient:
        """Return a client that has had an answer."""
        client = await self.connect(context, number)
        client.send(request_bytes("GET", "/health", {"Host": "localhost"}))
        await client.until_answers(1)
        return client

    async def test_older_connections(self) -> None:
        """A connection from before the listener asked for certificates ends with the refusal, for another one."""
        self.tls.asks_clients = False
        client = await self.connect(client_context(sign("client", self.authority)))
        client.send(signed_post("/hooks/gh"))
        self.assertEqual((await client.until_answers(1))[0].status, 200)
        self.tls.asks_clients = True
        client.send(signed_post("/x"))
        answer = (await client.until_answers(2))[1]
        self.assertEqual((answer.status, answer.headers["connection"]), (401, "close"))
        await client.lost


class PlainTests(IngestCase):
    def test_without_tls(self) -> None:
        """Over plain HTTP no client can show a certificate, and the answer says so."""
        self.world.serve(1, self.world.trigger("x", "/x", client_ca="ca.pem"))
        answer = self.world.wire().send(request_bytes("POST", "/x", signed(b"{}"), b"{}")).answer()
        self.assertEqual(answer.status, 401)
        self.assertIn("TLS", answer.json()["detail"])

    def test_warned(self) -> None:
        """The log names the triggers that no client can reach for lack of TLS."""
        served = [self.world.trigger(name, f"/{name}", **more).binding.spec for name, more in self.TRIGGERS]
        with capturedLogs() as events:
            warn_of_certificates(served)
        (said,) = [formatEvent(event) for event in events]
        self.assertIn("client_ca of x: this server has no --cert", said)

    TRIGGERS: Any = (("x", {"client_ca": "ca.pem"}), ("y", {}))


class ManifestTests(SynchronousTestCase):
    def test_files(self) -> None:
        """The file is read on each reload; one that cannot be used is a problem, and another a change."""
        world = ReloadWorld(Path(self.mktemp()))
        first, second = sign("one", is_ca=True), sign("two", is_ca=True)
        world.manifest(fake("a", extra='client_ca = "certs/ca.pem"'))
        self.assertIn("cannot be read", str(self.successResultOf(world.start()).problems[0]))
        for text, said in ((b"", "no certificate"), (b"-----BEGIN CERTIFICATE-----\nx", "no certificate")):
            (world.root / "certs").mkdir(exist_ok=True)
            (world.root / "certs" / "ca.pem").write_bytes(text)
            self.assertIn(said, str(self.successResultOf(world.start()).problems[0]))
        (world.root / "certs" / "ca.pem").write_bytes(first.pem)
        self.assertTrue(self.successResultOf(world.start()).ok)
        self.assertEqual(world.serving.inputs.client_authorities, {"certs/ca.pem": first.pem})
        (world.root / "certs" / "ca.pem").write_bytes(second.pem)
        report = self.successResultOf(world.reload())
        self.assertEqual((report.ok, report.generation, report.modified), (True, 2, ()))
        self.assertEqual(world.serving.inputs.client_authorities, {"certs/ca.pem": second.pem})
