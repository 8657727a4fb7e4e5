"""Mailing messages to a mail server on real sockets: with and without encryption and a login, and what goes wrong."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email import message_from_bytes
from email.policy import default
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from harn.alerts import mailing
from harn.alerts.mailing import write_mail
from harn.alerts.senders import AlertTarget, MailSender
from harn.errors import AlertNotSent
from harn.manifest.alerts import SmtpSettings
from harn.testing.clocks import NoThreads
from tests.alerts.receivers import LOOP, HttpReceiver, MailReceiver, TcpReceiver
from tests.alerts.test_senders import MESSAGE, ClockedLoop


class MailTests(TestCase):
    def test_text(self) -> None:
        """A mail has the headers that it needs, lines of seven bits, and the whole text."""
        data = write_mail(MESSAGE, "harn@shop.test", "ops@shop.test", "web-1", 1_700_000_000.0)
        self.assertTrue(data.isascii())
        self.assertNotIn(b"\n", data.replace(b"\r\n", b""))
        mail = message_from_bytes(data, policy=default)
        self.assertEqual((mail["From"], mail["To"]), ("harn <harn@shop.test>", "ops@shop.test"))
        self.assertEqual((mail["Message-ID"], mail["Auto-Submitted"]), ("<alert_1@web-1>", "auto-generated"))
        self.assertEqual((mail["Subject"], mail["Date"]), (MESSAGE.subject, "Tue, 14 Nov 2023 22:13:20 +0000"))
        self.assertEqual(mail.get_content().replace("\r\n", "\n").rstrip("\n"), MESSAGE.text)

    def test_other_letters(self) -> None:
        """Names of triggers in any language arrive, and no header can be made of them."""
        message = replace(MESSAGE, subject="harn alert: größe", lines=("Grüße",))
        data = write_mail(message, "harn@shop.test", "ops@shop.test", "web-1", 0.0)
        self.assertTrue(data.isascii())
        mail = message_from_bytes(data, policy=default)
        self.assertEqual((mail["Subject"], mail.get_content().splitlines()[1]), ("harn alert: größe", "Grüße"))


class SendingTests(TestCase):
    """`MailSender` against mail servers."""

    def server(self, *args: Any, **more: Any) -> MailReceiver:
        """Return a mail server that is closed after the test."""
        found = MailReceiver(*args, **more)
        self.addCleanup(found.close)
        return found

    def send(self, port: int, loop: Any = LOOP, **more: Any) -> Deferred[None]:
        """Send the example to the port."""
        password = more.pop("password", None)
        usual = {"host": "127.0.0.1", "port": port, "sender": "harn@shop.test", "tls": "none"}
        settings: dict[str, Any] = {**usual, **more}
        target = AlertTarget(
            to="email",
            shown="ops@shop.test",
            address="ops@shop.test",
            smtp=SmtpSettings(**settings),
            password=password,
        )
        sender = MailSender(loop, Clock(), NoThreads(), "web-1")
        return Deferred.fromCoroutine(sender.send(target, MESSAGE))

    async def refused(self, port: int, **more: Any) -> str:
        """Send the example, expect that it fails, and return the message of the error."""
        error = await self.assertFailure(self.send(port, **more), AlertNotSent)
        self.assertNotIn("pa55word", str(error))
        return str(error)

    async def test_plain(self) -> None:
        """A relay on this machine needs neither encryption nor a login."""
        server = self.server()
        await self.send(server.port)
        self.assertEqual((server.senders, server.recipients), (["harn@shop.test"], ["ops@shop.test"]))
        mail = message_from_bytes(server.mails[0], policy=default)
        self.assertEqual(mail["Subject"], MESSAGE.subject)
        self.assertIn("harn orchestrator delivery trigger_evt_1", mail.get_content())

    async def test_encryption(self) -> None:
        """With STARTTLS the certificate is checked: one that is not trusted is refused, before any login."""
        key = certificate()
        server = self.server(key.options(), {"harn": "pa55word"})
        said = await self.refused(server.port, host="localhost", tls="starttls", username="harn", password=b"pa55word")
        self.assertIn("certificate verify failed", said)
        self.assertEqual(server.mails, [])
        self.trust(key)
        await self.send(server.port, host="localhost", tls="starttls", username="harn", password=b"pa55word")
        self.assertEqual(len(server.mails), 1)

    async def test_implicit_tls(self) -> None:
        """With ``tls`` the connection is encrypted from the start."""
        key = certificate()
        server = self.server(encrypted_by=key.options())
        self.assertIn("certificate verify failed", await self.refused(server.port, host="localhost", tls="tls"))
        self.trust(key)
        await self.send(server.port, host="localhost", tls="tls")
        self.assertEqual(len(server.mails), 1)

    async def test_wrong_password(self) -> None:
        """A login that is refused is reported, without the password."""
        key = certificate()
        server = self.server(key.options(), {"harn": "other"})
        self.trust(key)
        said = await self.refused(server.port, host="localhost", tls="starttls", username="harn", password=b"pa55word")
        self.assertIn("535", said)

    async def test_no_encryption_offered(self) -> None:
        """A server without STARTTLS gets nothing where that is asked for."""
        server = self.server()
        self.assertIn("TLS", await self.refused(server.port, tls="starttls"))
        self.assertEqual(server.mails, [])

    async def test_recipient_refused(self) -> None:
        """What the server answers is shown."""
        server = self.server(refused=["ops@shop.test"])
        self.assertIn("550", await self.refused(server.port))

    async def test_down(self) -> None:
        """A port without a listener, or a connection that breaks, is reported."""
        gone = HttpReceiver()
        await gone.close()
        port = int(gone.url.split(":")[2].split("/")[0])
        self.assertIn("refused", await self.refused(port))
        rude = TcpReceiver(closes=True)
        self.addCleanup(rude.close)
        self.assertIn("Connection was closed", await self.refused(rude.port))

    async def test_hangs(self) -> None:
        """A server that says nothing is given up after a time."""
        mute, loop = TcpReceiver(), ClockedLoop()
        self.addCleanup(mute.close)
        sending = self.send(mute.port, loop=loop)
        await mute.connected
        loop.clock.advance(0)
        loop.clock.advance(31.0)
        error = await self.assertFailure(sending, AlertNotSent)
        self.assertIn("30 s", str(error))

    def trust(self, key: PrivateCertificate) -> None:
        """Add a certificate to those that the client trusts."""
        roots = trustRootFromCertificates([Certificate(key.original)])
        self.patch(mailing, "optionsForClientTLS", lambda host: optionsForClientTLS(host, roots))


def certificate() -> PrivateCertificate:
    """Return a certificate for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime(2020, 1, 1, tzinfo=timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    pem = signed.public_bytes(encoding) + key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(pem)
