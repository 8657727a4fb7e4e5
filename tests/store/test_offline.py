"""Reading an event log when no server runs, after a crash too."""

import os
import shutil
import subprocess
import sys

from msgspec.structs import replace

from harn.errors import StateDirectoryUnusable
from harn.model.delivery import WAITING
from harn.store.event_log import INBOX
from harn.store.sqlite.offline import open_readonly
from harn.testing.stores.kit import NOW, attempt_of, generation_of
from tests.store.sqlite_case import SQLiteTestCase


class OfflineTests(SQLiteTestCase):
    def fill(self) -> None:
        self.accept_one("e1")
        self.settle(self.accept_one("e2"), WAITING, due_at=NOW + 5, attempt=attempt_of(1, "failed"))
        self.result_of(self.store.event_log.append("audit.test", "kind", {"a": 1}))

    def check(self, path: str) -> None:
        with open_readonly(path) as offline:
            self.assertEqual(
                [record.payload["event"]["id"] for record in offline.ask(offline.event_log.read(INBOX, 0, 10))],
                ["e1", "e2"],
            )
            self.assertEqual([row.delivery_id for row in offline.ask(offline.deliveries.find("e2"))], [2])
            self.assertEqual(offline.ask(offline.event_log.latest("audit.test")), 1)
            self.assertIn("audit.test", offline.ask(offline.event_log.topics()))
            self.assertEqual(
                [(entry.ready, entry.waiting) for entry in offline.ask(offline.deliveries.backlog())], [(1, 1)]
            )
            self.assertEqual(
                (
                    offline.ask(offline.generations.last()),
                    offline.ask(offline.generations.history(5)),
                    offline.ask(offline.generations.latest_bindings()),
                ),
                (None, [], {}),
            )

    def test_history(self) -> None:
        """Adopted generations are shown with their content; one that was only reserved is not."""
        generation = generation_of(1, manifest_digest="sha256:m", reason="first", summary={"added": ["gh"]})
        self.adopt(generation, b"bundle", b"text")
        self.result_of(self.store.generations.reserve(generation_of(2), None))
        self.result_of(self.store.close())
        with open_readonly(self.path) as offline:
            adopted = replace(generation, adopted_at=NOW)
            self.assertEqual(
                (offline.ask(offline.generations.generation(1)), offline.ask(offline.generations.history(5))),
                (adopted, [adopted]),
            )
            self.assertEqual(
                (offline.ask(offline.generations.generation(2)), offline.ask(offline.generations.generation(3))),
                (None, None),
            )
            self.assertEqual(
                (
                    offline.ask(offline.generations.manifest("sha256:m")),
                    offline.ask(offline.generations.manifest("sha256:no")),
                ),
                (b"text", None),
            )
            self.assertEqual(
                (
                    offline.ask(offline.generations.bundle("sha256:b1")),
                    offline.ask(offline.generations.bundle("sha256:no")),
                ),
                (b"bundle", None),
            )

    def test_after_a_clean_end(self) -> None:
        """What a server wrote is read after it closed its store."""
        self.fill()
        self.result_of(self.store.close())
        self.check(self.path)

    def test_while_a_server_runs(self) -> None:
        """Reading needs no lock, and does not hinder the server."""
        self.fill()
        self.check(self.path)
        self.accept_one("e3")

    def test_after_a_crash(self) -> None:
        """What only the write-ahead log holds is read, too, and stays there."""
        self.fill()
        copy = self.mktemp()
        os.makedirs(copy)
        for suffix in ("", "-wal"):
            shutil.copy(self.path + suffix, os.path.join(copy, "events.sqlite" + suffix))
        size = os.path.getsize(os.path.join(copy, "events.sqlite-wal"))
        self.assertGreater(size, 0)
        self.check(os.path.join(copy, "events.sqlite"))
        self.assertEqual(os.path.getsize(os.path.join(copy, "events.sqlite-wal")), size)

    def test_nothing_there(self) -> None:
        """A state directory without an event log is named, and none is made."""
        path = self.mktemp()
        with self.assertRaises(StateDirectoryUnusable) as raised:
            open_readonly(path)
        self.assertIn(path, str(raised.exception))
        self.assertFalse(os.path.exists(path))

    def test_no_database(self) -> None:
        """A file of something else is refused."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"something else entirely, of some length" * 100)
        with self.assertRaises(StateDirectoryUnusable):
            open_readonly(path)

    def test_nothing_of_twisted_is_imported(self) -> None:
        """The command line reads an event log without paying for Twisted."""
        program = (
            "import sys, harn.store.sqlite.offline; print(any(name.startswith('twisted') for name in sys.modules))"
        )
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ)
        self.assertEqual((printed.stdout, printed.stderr), ("False\n", ""))
