"""``serve --last-good``: a server that finds its files broken begins with the last live generation, and says so."""

from __future__ import annotations

from collections.abc import Callable

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text
from tests.integration.test_watch import WatchCase


class LastGoodCase(ServerCase):
    """A state directory in which generation 2 served last, and files that can be broken."""

    def serve_two(self) -> None:
        """Run a server for two generations, and end it."""
        server = self.serve()
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(server.terminate(), 0)

    def assert_version(self, server: ServerProcess, key: str, version: str, binding: str) -> None:
        """See which code handles a delivery, and as which version."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding=binding)
        [seen] = self.wait_handled(key)
        self.assertEqual(seen["version"], version)

    def gauge(self, server: ServerProcess) -> str:
        """Return the value of ``harn_reload_last_status``."""
        lines = server.request("GET", "/metrics").body.decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith("harn_reload_last_status ")]
        return value


class StartTests(LastGoodCase):
    """Starts with broken files."""

    def test_broken_files(self) -> None:
        """
        Manifest broken, gone, or its handler: without the flag exit 1 and the problems, with it the last live
        generation.
        """
        self.serve_two()

        def broken_manifest() -> None:
            self.write("harn.toml", "nonsense [")

        def gone_manifest() -> None:
            (self.directory / "harn.toml").unlink()

        def broken_handler() -> None:
            self.write_handlers("three", "raise RuntimeError('not today')\n")

        cases: tuple[tuple[Callable[[], None], str], ...] = (
            (broken_manifest, r"harn\.toml:1"),
            (gone_manifest, r"harn\.toml"),
            (broken_handler, r"not today"),
        )
        # The version stays: it is the same content. The generation is a new one each time.
        for number, (spoil, problem) in enumerate(cases):
            self.write_manifest()
            self.write_handlers("two")
            spoil()
            places = {path: path.exists() for path in (self.directory / "harn.toml", self.directory / "handlers.py")}
            said = self.ended(self.start())
            self.assertRegex(said, problem)
            self.assertIn("error: ", said)
            server = self.start("--last-good").wait_ready()
            line = server.wait_for_line(r"--last-good: generation \d+ serves")
            self.assertIn("not the files: ", line.string)
            self.assert_version(server, f"d{number}", "two", "gh@v2")
            live = server.generation()
            self.assertEqual((live["drift"], live["source"]), (True, "start"))
            self.assertIn("the files are broken", live["reason"])
            self.assertRegex(live["last_failed"]["error"], problem)
            self.assertEqual(self.gauge(server), "0.0")
            self.assertEqual({path: path.exists() for path in places}, places)
            self.assertEqual(server.terminate(), 0)

    def start(self, *arguments: str) -> ServerProcess:
        """Start a server on the files as they are, present or not."""
        server = ServerProcess(self.directory, *arguments, environ=self.environ)
        self.addCleanup(self.assert_no_secrets, server)
        self.addCleanup(server.stop)
        return server

    def test_mended(self) -> None:
        """A reload of files that are still broken fails and changes nothing; corrected, they are adopted."""
        self.serve_two()
        self.write("harn.toml", "nonsense [")
        server = self.serve("--last-good")
        number = server.generation()["generation"]
        self.assert_failed(server.reload(), "parse")
        self.assert_version(server, "d1", "two", "gh@v2")
        self.assertEqual(server.generation()["generation"], number)
        self.write_manifest(trigger_text("gh", extra='timeout = "7s"'))
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assert_version(server, "d2", "two", "gh@v3")
        live = server.generation()
        self.assertEqual((live["drift"], live["last_failed"]), (False, None))
        self.assertEqual(self.gauge(server), "1.0")
        server = self.restart(server, "--last-good")
        self.assertEqual(server.generation()["generation"], live["generation"])

    def test_files_that_are_good(self) -> None:
        """With good files the flag changes nothing: they equal the live generation."""
        self.serve_two()
        self.write_handlers("three")
        server = self.serve("--last-good")
        self.assert_version(server, "d1", "three", "gh@v3")
        self.assertEqual((server.generation()["generation"], server.generation()["drift"]), (3, False))
        self.assertNotIn("--last-good", server.stderr)

    def test_nothing_ever_served(self) -> None:
        """Without any generation the start fails with the problems, and says that there is none to begin with."""
        self.write_handlers()
        self.write("harn.toml", "nonsense [")
        said = self.ended(self.start("--last-good"))
        self.assertRegex(said, r"harn\.toml:1")
        self.assertIn("--last-good: ", said)
        self.assertNotIn("Traceback", said)
        self.write_manifest()
        self.assert_version(self.serve("--last-good"), "d1", "one", "gh@v1")

    def test_nothing_that_can_serve(self) -> None:
        """When the last good one cannot serve either, for lack of a secret, the start fails and names both."""
        secret = self.write("secret", "value\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        self.assertEqual(self.serve().terminate(), 0)
        secret.unlink()
        self.write("harn.toml", "nonsense [")
        said = self.ended(self.start("--last-good"))
        self.assertIn("github/rotating", said)
        self.assertRegex(said, r"harn\.toml:1")
        self.assertNotIn("Traceback", said)
        secret.write_text("value\n")
        server = self.start("--last-good").wait_ready()
        answer = server.deliver("/triggers/gh", delivery="d1", secret=b"value")
        self.assert_accepted(answer, binding="gh@v1")

    def test_unfinished_work(self) -> None:
        """What was accepted and not finished continues, on its own version's code, though the files are gone."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")
        server.kill()
        for name in ("handlers.py", "harn.toml"):
            (self.directory / name).unlink()
        server = self.start("--last-good").wait_ready()
        self.release()
        versions = {each["key"]: (each["version"], each["binding"]) for each in self.wait_handled("d1", "d2")}
        self.assertEqual(versions, {"d1": ("one", "gh@v1"), "d2": ("two", "gh@v2")})


class WatchTests(LastGoodCase, WatchCase):
    """``--last-good`` with ``--watch``."""

    def test_mended(self) -> None:
        """Corrected files are adopted automatically."""
        self.serve_two()
        (self.directory / "handlers.py").unlink()
        server = ServerProcess(self.directory, "--last-good", "--watch", environ=self.environ)
        self.addCleanup(self.assert_no_secrets, server)
        self.addCleanup(server.stop)
        server.wait_ready()
        LastGoodCase.assert_version(self, server, "d1", "two", "gh@v2")
        number = server.generation()["generation"]
        self.write_handlers("six")
        self.wait_generation(server, number + 1)
        LastGoodCase.assert_version(self, server, "d2", "six", "gh@v3")
        wait_until(lambda: self.gauge(server) == "1.0", "the gauge")
        self.assertFalse(server.generation()["drift"])
