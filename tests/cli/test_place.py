"""Where a command finds its server: by its state file, and what is said when that does not help."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from harn.auth.credentials import Credentials
from harn.cli import place
from harn.cli.client import AdminClient, NoServerUrl, fault_of_url
from harn.orchestrator.state_directory import replace_file
from harn.store.lock import StateDirectoryLock, state_path
from tests.cli.test_commands import NOTHING, CommandCase


class HiddenServerTests(CommandCase):
    """A server whose state file is lost."""

    def hold(self) -> None:
        """Hold the state directory as a server does."""
        lock = StateDirectoryLock(self.state_dir)
        lock.acquire()
        self.addCleanup(lock.release)

    def when_asleep(self, do: Callable[[], None]) -> None:
        """Call ``do`` while a command waits, before it looks again; no time passes."""
        self.patch(time, "sleep", lambda seconds: do())

    def test_lost(self) -> None:
        """It is said who holds the directory, and how to continue; not that no server runs."""
        self.hold()
        self.patch(place, "LOOKED_FOR", 0.0)
        for text in (None, "{", "{}"):
            if text is not None:
                with open(state_path(self.state_dir), "w", encoding="utf-8") as file:
                    file.write(text)
            for command in (["reload"], ["inspect"], ["history"], ["events", "t"]):
                result = self.harn(*command)
                self.assert_failed(result, f"a server (pid {os.getpid()}) holds", "missing or damaged", "--admin-url")
                self.assertNotIn("no server runs", result.stderr)

    def test_found_again(self) -> None:
        """A state file that the server writes again while the command waits is all that it needs."""
        server = self.serve((200, NOTHING))
        os.unlink(state_path(self.state_dir))
        document = json.dumps({"status": "running", "pid": os.getpid(), "listener_url": server.url}).encode()
        self.when_asleep(lambda: replace_file(state_path(self.state_dir), document))
        self.assertEqual(self.harn("reload").exit_code, 0)

    def test_ended_meanwhile(self) -> None:
        """When the server ends while the command waits, no server runs."""
        lock = StateDirectoryLock(self.state_dir)
        lock.acquire()
        self.when_asleep(lock.release)
        self.assert_failed(self.harn("reload"), "no server runs on")

    def test_starting(self) -> None:
        """A server that holds the directory while its file describes the previous one is starting or ending."""
        self.hold()
        document = json.dumps({"status": "stopped", "pid": 1, "listener_url": "http://x"}).encode()
        replace_file(state_path(self.state_dir), document)
        self.assert_failed(self.harn("reload"), f"a server (pid {os.getpid()}) holds", "starting or ending")


class UrlTests(CommandCase):
    """``--admin-url``."""

    def test_faults(self) -> None:
        """What no server can have as its URL is refused before anything is sent, in words."""
        for url, wrong in (
            ("http://[::1", "Invalid IPv6 URL"),
            ("http://h:99999", "Port out of range"),
            ("http://h:x", "Port could not be cast"),
            ("http://h:0", "a port other than 0"),
            ("http://", "must name a host"),
            ("ftp://h", "must begin with http:// or https://"),
            ("h:8080", "must begin with"),
            ("", "must begin with"),
            ("http://a b", "without spaces"),
            ("http://h/\n", "printable"),
            ("http://\u00fc", "ASCII"),
            ("http://user:hush@h", "neither user"),
            ("http://h/?a=1", "neither user, query"),
        ):
            self.assertIn(wrong, fault_of_url(url), url)
            result = self.harn("reload", "--admin-url", url)
            self.assert_failed(result, "is not the URL of a server", "for example http://127.0.0.1:8080")
            self.assertNotIn("hush", result.stderr)
        for url in ("http://127.0.0.1:8080", "https://harn.example", "http://[::1]:1/below/"):
            self.assertEqual(fault_of_url(url), "")
        with self.assertRaises(NoServerUrl):
            AdminClient(url="x", credentials=Credentials())

    def test_host_that_cannot_be(self) -> None:
        """A name that no host can have is an answer, too."""
        for host in ("a" * 300, "a..b"):
            self.assert_failed(self.harn("reload", "--admin-url", f"http://{host}"), "no server answers at")

    def test_another_program(self) -> None:
        """JSON of another server is not taken for an answer of harn."""
        commands = (
            *(["reload"], ["plan"], ["inspect"], ["events", "t"], ["drains"], ["ramp"], ["fire", "gh"], ["history"]),
            *(["show", "1"], ["diff", "1"], ["recover", "--envelope-age", "1m", "--dry-run"], ["confirm"]),
        )
        documents: tuple[object, ...] = (
            [],
            {},
            {"status": "ok"},
            {"records": 1, "drains": [1], "ramps": {}, "generations": None},
        )
        server = self.serve()
        for document in documents:
            for command in commands:
                server.answers = [(200, document)]
                result = self.harn(*command)
                self.assertIn(result.exit_code, (1, 2), (document, command, result.output))
                self.assertTrue(result.stderr.startswith("error: "), (document, command))
