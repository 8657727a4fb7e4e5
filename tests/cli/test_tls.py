"""Talking to a server over TLS: whom the commands trust."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cli.server import StubServer, tell_of
from tests.cli.test_commands import NOTHING, CommandCase


def make_certificate(directory: str) -> tuple[str, str]:
    """Make a self-signed certificate for 127.0.0.1; return the paths of it and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "harn test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    with open(paths[0], "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    with open(paths[1], "wb") as file:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return paths


class TlsTests(CommandCase):
    """A server with a certificate of its own making."""

    def setUp(self) -> None:
        super().setUp()
        directory = self.mktemp()
        os.mkdir(directory)
        self.certificate, key = make_certificate(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server = StubServer((200, NOTHING), tls=context)
        self.addCleanup(self.server.close)
        self.addCleanup(tell_of(self.server.url, self.state_dir).release)

    def test_stranger_is_not_trusted(self) -> None:
        """A certificate without a trusted issuer is refused, with what to do; nothing is sent."""
        self.assert_failed(self.harn("reload"), "no trusted connection", "--cacert")
        self.assertEqual(self.server.seen, [])

    def test_plain_server(self) -> None:
        """A server without TLS does not cause an error about certificates: the URL is wrong."""
        plain = StubServer((200, NOTHING))
        self.addCleanup(plain.close)
        url = plain.url.replace("http://", "https://")
        self.assert_failed(self.harn("reload", "--admin-url", url), "does not speak TLS", f"write {plain.url}")

    def test_vouched_for(self) -> None:
        """With ``--cacert`` its own certificate is trusted."""
        self.assertEqual(self.harn("reload", "--cacert", self.certificate).exit_code, 0)

    def test_insecure(self) -> None:
        """With ``--insecure`` any certificate is."""
        self.assertEqual(self.harn("reload", "--insecure").exit_code, 0)

    def test_no_such_file(self) -> None:
        """A file of certificates that is not there is named."""
        self.assert_failed(self.harn("reload", "--cacert", "nowhere.pem"), "--cacert nowhere.pem")
