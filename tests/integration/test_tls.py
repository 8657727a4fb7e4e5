"""TLS: the same port in HTTPS, the commands over it, and certificates that are replaced by a reload."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harn.testing.server import API_KEY, GITHUB_SECRET, ServerProcess, wait_until
from harn.testing.signers import github_headers
from tests.integration.case import ServerCase, trigger_text

TLS = ("--cert", "cert.pem", "--key", "key.pem")


class TLSCase(ServerCase):
    """Servers with a certificate of their own."""

    def setUp(self) -> None:
        """Make a certificate."""
        super().setUp()
        self.make_certificate("cert.pem", "key.pem")

    def make_certificate(self, cert_name: str, key_name: str) -> None:
        """Write a self-signed certificate for the loopback address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "harn test")])
        now = datetime.datetime.now(datetime.timezone.utc)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(address, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / cert_name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.directory / key_name).write_bytes(encoded)

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the current certificate."""
        return ssl.create_default_context(cafile=str(self.directory / "cert.pem"))

    def served(self, server: ServerProcess) -> str:
        """Return the digest of the certificate that a fresh handshake shows."""
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        shown = ssl.get_server_certificate((host, int(port)), timeout=10.0)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest()


class TLSTests(TLSCase):
    """HTTPS."""

    def test_client_certificates(self) -> None:
        """A trigger with an authority answers 401 without a certificate of it; a reload changes the authority."""
        for name in ("one", "two"):
            self.make_certificate(f"{name}.pem", f"{name}.key")
        (self.directory / "ca.pem").write_bytes((self.directory / "one.pem").read_bytes())
        self.write_manifest(trigger_text("gh", extra='client_ca = "ca.pem"'), trigger_text("open"))
        server = self.serve(*TLS)
        self.assertEqual([self.posted(server, name) for name in (None, "one", "two")], [401, 200, 401])
        self.assertEqual(self.posted(server, None, "/triggers/open"), 200)
        (self.directory / "ca.pem").write_bytes((self.directory / "two.pem").read_bytes())
        self.assertEqual(self.orchestrator("reload", "--insecure").status, 0)
        self.assertEqual([self.posted(server, name) for name in (None, "one", "two")], [401, 401, 200])
        self.write_manifest(trigger_text("gh"), trigger_text("open"))
        self.assertEqual(self.orchestrator("reload", "--insecure").status, 0)
        self.assertEqual(self.posted(server, None), 200)

    def posted(self, server: ServerProcess, shown: str | None, path: str = "/triggers/gh") -> int:
        """Return how a delivery of a client with a certificate is answered."""
        context = self.context()
        if shown is not None:
            context.load_cert_chain(self.directory / f"{shown}.pem", self.directory / f"{shown}.key")
        connection = server.connect(context=context)
        try:
            return connection.deliver(path, delivery=f"d-{shown}-{path}").status
        finally:
            connection.close()

    def test_serving_and_commands(self) -> None:
        """The URL is https; deliveries arrive; commands need ``--cacert`` or ``--insecure``."""
        server = self.serve(*TLS)
        self.assertTrue(server.url.startswith("https://"), server.url)
        self.assertEqual(server.state()["listener_url"], server.url)
        connection = server.connect(context=self.context())
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"))
        connection.close()
        self.wait_handled("d1")
        for arguments in (("--cacert", "cert.pem"), ("--insecure",)):
            done = self.orchestrator("reload", *arguments)
            self.assertEqual(done.status, 0, done)
        refused = self.orchestrator("reload")
        self.assertEqual(refused.status, 1)
        self.assertIn("--cacert", refused.stderr)
        self.assertEqual(server.terminate(), 0, server.stderr)

    def test_certificate_is_replaced(self) -> None:
        """After a reload fresh handshakes show the new certificate; connections that are open continue."""
        server = self.serve(*TLS)
        connection = server.connect(context=self.context())
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d1"))
        before = self.served(server)
        self.make_certificate("cert.pem", "key.pem")
        self.assertEqual(self.served(server), before)
        done = self.orchestrator("reload", "--insecure", "--json")
        self.assertEqual(done.status, 0, done)
        self.assertNotEqual(self.served(server), before)
        self.assert_accepted(connection.deliver("/triggers/gh", delivery="d2"))
        connection.close()
        fresh = server.connect(context=self.context())
        self.assert_accepted(fresh.deliver("/triggers/gh", delivery="d3"))
        fresh.close()

    def test_pair_that_does_not_match(self) -> None:
        """A key of another certificate is refused at start, and by a reload, which leaves the old pair serving."""
        self.make_certificate("other.pem", "other-key.pem")
        said = self.ended(self.serve("--cert", "cert.pem", "--key", "other-key.pem", ready=False))
        self.assertIn("error: ", said)
        self.assertIn("other-key.pem", said)
        server = self.serve(*TLS)
        before = self.served(server)
        (self.directory / "other-key.pem").replace(self.directory / "key.pem")
        done = self.orchestrator("reload", "--insecure")
        self.assertEqual(done.status, 1, done)
        self.assertIn("key.pem", done.stderr)
        self.assertEqual(self.served(server), before)

    def test_broken_files(self) -> None:
        """Whatever is wrong with the files: a reload over an open connection fails at resolve; then it heals."""
        server = self.serve(*TLS)
        connection = server.connect(context=self.context())
        self.addCleanup(connection.close)
        before = self.served(server)
        certificate, key = self.directory / "cert.pem", self.directory / "key.pem"
        right = {path: path.read_bytes() for path in (certificate, key)}
        headers = {"Authorization": f"Bearer {API_KEY}"}
        self.make_certificate("other.pem", "other-key.pem")
        for path, content, said in (
            (certificate, None, "cannot be read"),
            (key, None, "cannot be read"),
            (certificate, b"", "holds no PEM certificate"),
            (certificate, right[certificate][:200], "holds no PEM certificate"),
            (key, right[key][:100] + right[key][110:], "is damaged"),
            (key, (self.directory / "other-key.pem").read_bytes(), "does not belong to"),
            (certificate, (self.directory / "other.pem").read_bytes(), "does not belong to"),
        ):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            report = self.assert_failed(connection.request("POST", "/admin/reload", b"{}", headers), "resolve")
            self.assertEqual(report["generation"], 1)
            self.assertIn(said, str(report["problems"]))
            self.assertIn(path.name, str(report["problems"]))
            self.assertEqual(self.served(server), before)
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=f"{path.name} {said} {content!r}"))
            path.write_bytes(right[path])
        self.make_certificate("cert.pem", "key.pem")
        report = self.assert_reloaded(connection.request("POST", "/admin/reload", b"{}", headers), unchanged=["gh"])
        self.assertEqual(report["generation"], 2)
        self.assertNotEqual(self.served(server), before)
        self.assertTrue(connection.is_open)

    def test_request_under_way(self) -> None:
        """A request that began under the old certificate is read and answered to its end."""
        server = self.serve(*TLS)
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        body = b'{"action": "opened"}'
        headers = github_headers(GITHUB_SECRET, body, "issues", "d1")
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /triggers/gh HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
        plain = socket.create_connection((host, int(port)), 60.0)
        with self.context().wrap_socket(plain, server_hostname=host) as half:
            half.sendall(head + body[:5])
            old = half.getpeercert(binary_form=True)
            self.make_certificate("cert.pem", "key.pem")
            self.write_handlers("two")
            done = self.orchestrator("reload", "--insecure")
            self.assertEqual(done.status, 0, done)
            self.assertNotEqual(self.served(server), hashlib.sha256(old or b"").hexdigest())
            half.sendall(body[5:])
            answer = half.recv(65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertIn(b"gh@v1", answer)  # its headers were in before the reload
        self.assertEqual([each["version"] for each in self.wait_handled("d1")], ["one"])

    def test_missing_files(self) -> None:
        """A certificate that is not there is named."""
        said = self.ended(self.serve("--cert", "none.pem", "--key", "key.pem", ready=False))
        self.assertIn("none.pem", said)

    def test_watched(self) -> None:
        """With ``--watch`` a replaced pair is taken up by itself."""
        server = self.serve(*TLS, "--watch")
        before = self.served(server)
        self.make_certificate("cert.pem", "key.pem")
        wait_until(lambda: self.served(server) != before, "the new certificate")
