"""The token file of a state directory."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.auth.token import read_token, token_path, write_token


class TokenTests(SynchronousTestCase):
    """Writing and reading it."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def test_new_each_time(self) -> None:
        """Each start makes another one; what is read is the newest, and nothing else is left."""
        first, second = write_token(self.directory), write_token(self.directory)
        self.assertNotEqual(first, second)
        self.assertEqual(read_token(self.directory), second)
        self.assertEqual(os.listdir(self.directory), ["token"])
        self.assertGreaterEqual(len(second), 40)

    def test_for_its_owner_alone(self) -> None:
        """Its mode is 0600, also where something with another mode stood."""
        beside = f"{token_path(self.directory)}.{os.getpid()}.tmp"
        for path in (token_path(self.directory), beside):
            with open(path, "w", encoding="ascii"):
                os.chmod(path, 0o644)
        write_token(self.directory)
        self.assertEqual(os.stat(token_path(self.directory)).st_mode & 0o777, 0o600)

    def test_no_token(self) -> None:
        """A file that is missing, empty, a pipe or another kind of file gives no token, and is not waited for."""
        self.assertIsNone(read_token(self.directory))
        path = token_path(self.directory)
        with open(path, "wb"):
            self.assertIsNone(read_token(self.directory))
        os.unlink(path)
        os.mkfifo(path)
        self.assertIsNone(read_token(self.directory))
        os.unlink(path)
        os.mkdir(path)
        self.assertIsNone(read_token(self.directory))
