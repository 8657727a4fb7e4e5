"""The file of a database becomes smaller once retention has emptied it."""

import os

from harn.store.retention import RetentionPolicy
from harn.store.sqlite.retention import KEPT, SHARE
from harn.testing.stores.kit import NOW
from tests.store.sqlite_case import SQLiteTestCase

NOTHING = RetentionPolicy(events=0.0, dead=0.0)


class ShrinkingTests(SQLiteTestCase):
    def fill(self, count: int = 60, body: bytes = b"x" * 200_000) -> None:
        for number in range(count):
            self.settle(self.accept_one(f"e{number}", body=body))

    def pages(self) -> tuple[int, int]:
        return self.query("SELECT p.page_count, f.freelist_count FROM pragma_page_count p, pragma_freelist_count f")[0]

    def test_free_pages_are_given_back_in_slices(self) -> None:
        """What trimming empties goes back a few pages at a time, but for a part, and the file gets that size."""
        self.fill()
        kept = self.accept_one("kept")
        total, _ = self.pages()
        self.trim_all(NOTHING, NOW + 1)
        self.assertGreater(self.pages()[1], 2500)
        given = []
        while pages := self.result_of(self.store.shrink(100)):
            given.append(pages)
        self.result_of(self.store.settle_log())
        left, free = self.pages()
        self.assertEqual(left, total - sum(given))
        self.assertLessEqual(max(given), 101)  # one more where the map of pages needs one less
        self.assertEqual(free, max(KEPT, (left - free) // SHARE))
        self.assertEqual(os.path.getsize(self.path), left * 4096)
        self.assertEqual(self.ready_ids(), [kept])
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])

    def test_few_free_pages_stay(self) -> None:
        """A file of which little is free keeps it."""
        self.fill(3)
        self.trim_all(NOTHING, NOW + 1)
        self.assertGreater(self.pages()[1], 100)
        self.assertEqual(self.result_of(self.store.shrink(100)), 0)

    def test_file_of_an_earlier_version(self) -> None:
        """A file that was made without it continues as before: nothing is given back, and nothing fails."""
        self.open_one_that_keeps_its_size()
        self.fill(30)
        self.trim_all(NOTHING, NOW + 1)
        self.assertGreater(self.pages()[1], KEPT)
        self.assertEqual(self.result_of(self.store.shrink(100)), 0)
