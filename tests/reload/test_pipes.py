"""Named pipes, sockets and devices in the place of files that a reload reads: each is refused, and none waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harn.listener.tls import CertificateFiles
from harn.reload.inputs import ExternalInputs, current_digests, hash_file
from tests.listener.test_tls import make_pair
from tests.reload.world import World, fake, github
from tests.sockets import bind_in

HEAD = '[orchestrator.vm]\ninclude = ["more.py"]\n[exports]\nout = "src/out.py"\n'


class PipeTests(SynchronousTestCase):
    """A server that reads a file of every kind. Whoever waited for a pipe here would hang the test."""

    def setUp(self) -> None:
        self.world = World(Path(self.mktemp()).absolute())
        self.root = self.world.root
        certificate, key = make_pair(str(self.root / "pki"), "one")
        environ = self.world.environ
        environ["HARN_SECRET_GITHUB_WEBHOOK_SECRET_FILE"] = str(self.root / "secret")
        environ["HARN_ORCHESTRATOR_API_KEYS_FILE"] = str(self.root / "keys")
        environ["HARN_ORCHESTRATOR_HMAC_SECRET_FILE"] = str(self.root / "hmac")
        del environ["HARN_SECRET_GITHUB_WEBHOOK_SECRET"]
        self.world.builder.external = ExternalInputs(
            environ=environ,
            certificate=CertificateFiles(certificate, key),
            hash_key=b"k" * 32,
        )
        for name in ("secret", "keys", "hmac"):
            self.world.write(name, "s-1\n")
        self.world.write("more.py", "X = 1\n")
        self.world.write("src/out.py", "def f(event):\n    return 1\n")
        self.world.write("handlers.py", "import beside\n\ndef on_event(event):\n    return 1\n")
        self.world.write("beside.py", "X = 1\n")
        self.world.manifest(github("gh"), fake("a", handler="out:f"), head=HEAD)
        report = self.successResultOf(self.world.start())
        self.assertTrue(report.ok, report)

    def refused(self, name: str) -> str:
        """Reload, see it refused without a change, and give what was said; then the file is put back."""
        before = self.world.stands()
        report = self.successResultOf(self.world.reload())
        self.assertFalse(report.ok, name)
        self.assertEqual(report.stage, "parse" if name == "harn.toml" else "resolve")
        self.assertEqual(self.world.stands(), before)
        return str(report.problems)

    def test_every_file(self) -> None:
        """Manifest, modules however found, certificate, key, secrets and keys: the reload fails, and names the file."""
        for name in (
            *("harn.toml", "handlers.py", "beside.py", "more.py", "src/out.py"),
            *("pki/one.crt", "pki/one.key", "secret", "keys", "hmac"),
        ):
            path = self.root / name
            kept = path.rename(str(path) + ".kept")
            os.mkfifo(path)
            said = self.refused(name)
            self.assertRegex(said, "regular file|special file", name)
            self.assertIn(name, said)
            path.unlink()
            os.symlink("/dev/zero", path)
            self.assertRegex(self.refused(name), "regular file|special file", name)
            path.unlink()
            path.mkdir()
            self.assertIn("directory", self.refused(name), name)
            path.rmdir()
            kept.rename(path)
            self.assertTrue(self.successResultOf(self.world.reload()).ok, name)
        self.assertEqual(self.world.coordinator.generation, 1)

    def test_emptied(self) -> None:
        """Files of credentials that were emptied, or removed, are refused by name; the old credentials stay valid."""
        for name in ("keys", "hmac"):
            for spoil in (lambda path: path.write_text("\n"), Path.unlink):
                path = self.root / name
                held = path.read_text()
                spoil(path)
                self.assertIn(f"{path}", self.refused(name))
                path.write_text(held)
        live = self.world.coordinator.current
        assert live is not None
        self.assertTrue(live.inputs.credentials.configured)

    def test_emptied_before_a_start(self) -> None:
        """A server does not start with a file of credentials that holds none."""
        external = self.world.builder.external
        self.world.write("keys", "# none yet\n")
        world = self.world.restarted()
        world.builder.external = external
        self.assertIn("holds no key", str(self.successResultOf(world.start()).problems))

    def test_socket(self) -> None:
        """A socket in place of the manifest is refused as a socket, too."""
        (self.root / "harn.toml").rename(self.root / "harn.toml.kept")
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        bind_in(self.root, "harn.toml", listening)
        self.assertIn("is not a regular file", self.refused("harn.toml"))

    def test_digests(self) -> None:
        """The watcher's and drift's look at the files takes a pipe for unreadable, keyed or not."""
        pipe = str(self.root / "pipe")
        os.mkfifo(pipe)
        self.assertEqual(hash_file(pipe, b"k" * 32), "unreadable")
        secret, manifest = str(self.root / "secret"), str(self.root / "harn.toml")
        found = current_digests([pipe, secret, manifest], [pipe, manifest], b"k" * 32)
        self.assertEqual(found[pipe], "unreadable")
        self.assertNotIn("unreadable", (found[secret], found[manifest]))
