"""The description of a server that another version of harn wrote."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.store.servers import SERVING, ServerNote, read_note


class NoteTests(SynchronousTestCase):
    def test_other_versions(self) -> None:
        """Members that a newer version added are ignored; those that an older one did not have are unknown."""
        newer = {**msgspec.to_builtins(ServerNote(status=SERVING, outstanding=3, not_ready=())), "further": 1}
        self.assertEqual(read_note(msgspec.json.encode(newer)), ServerNote(status=SERVING, outstanding=3, not_ready=()))
        older = {"status": SERVING, "url": "http://a", "generation": 4, "version": "0.1"}
        found = read_note(msgspec.json.encode(older))
        self.assertEqual((found.generation, found.outstanding, found.not_ready), (4, None, None))
