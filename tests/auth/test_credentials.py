"""The credentials of callers, from the environment and its files; the token that a server makes."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from harn.auth.credentials import API_KEYS, HMAC_SECRET, Credentials, authorization, read_token, token_path, write_token
from harn.errors import SecretUnavailable


class CredentialsTests(SynchronousTestCase):
    """``Credentials.from_environment``."""

    def file(self, content: bytes) -> str:
        """Write a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_keys(self) -> None:
        """Keys are separated by commas and trimmed; empty ones do not count."""
        credentials = Credentials.from_environment({API_KEYS: " one, two ,,one,\u00e9"})
        self.assertEqual(credentials.keys, (b"one", b"two", "\u00e9".encode()))
        self.assertIsNone(credentials.hmac_secret)
        self.assertTrue(credentials.configured)

    def test_files(self) -> None:
        """Files hold the same; keys may also be one a line. The files are known, to be watched."""
        keys, secret = self.file(b"one,two\nthree\r\n"), self.file(b"s3cret\n")
        credentials = Credentials.from_environment({f"{API_KEYS}_FILE": keys, f"{HMAC_SECRET}_FILE": secret})
        self.assertEqual(credentials.keys, (b"one", b"two", b"three"))
        self.assertEqual(credentials.hmac_secret, b"s3cret")
        self.assertEqual(credentials.files, (os.path.abspath(keys), os.path.abspath(secret)))

    def test_trimmed(self) -> None:
        """White space around a credential is stripped; a byte order mark is reported with the variable's name."""
        keys, secret = self.file(b"\xef\xbb\xbfone\n two \n\n"), self.file(b"\xef\xbb\xbf s3cret\n\n")
        credentials = Credentials.from_environment({f"{API_KEYS}_FILE": keys, f"{HMAC_SECRET}_FILE": secret})
        self.assertEqual((credentials.keys, credentials.hmac_secret), ((b"one", b"two"), b"s3cret"))
        mark = f"{API_KEYS}: a byte order mark before the first key was taken off; store it without"
        more = f"{HMAC_SECRET}: a byte order mark and a line end and white space around its value was taken off; "
        self.assertEqual(credentials.warnings, (mark, f"{more}store it without"))
        usual = Credentials.from_environment({API_KEYS: "one, two\n", HMAC_SECRET: "s3cret"})
        self.assertEqual((usual.keys, usual.warnings), ((b"one", b"two"), ()))
        utf_16 = {f"{API_KEYS}_FILE": self.file("one".encode("utf-16"))}
        self.assertIn(API_KEYS, str(self.assertRaises(SecretUnavailable, Credentials.from_environment, utf_16)))

    def test_nothing(self) -> None:
        """Unset and empty variables configure nothing; never an empty key."""
        for environ in ({}, {API_KEYS: "", HMAC_SECRET: ""}, {f"{API_KEYS}_FILE": ""}):
            credentials = Credentials.from_environment(environ)
            self.assertEqual((credentials.keys, credentials.hmac_secret), ((), None))
            self.assertFalse(credentials.configured)

    def test_emptied(self) -> None:
        """A variable that is set and empty is an error that names it, and does not turn authentication off."""
        for content in (b"", b"\n", b" \r\n\t", b",, ,\n,", b"# old: one\n  # none now\n", b"\xef\xbb\xbf\n"):
            path = self.file(content)
            error = self.assertRaises(SecretUnavailable, Credentials.from_environment, {f"{API_KEYS}_FILE": path})
            self.assertIn(f"{API_KEYS}_FILE names {path!r}, which holds no key; write one to it", str(error))
        for content in (b"", b" \n\n", b"\xef\xbb\xbf"):
            path = self.file(content)
            error = self.assertRaises(SecretUnavailable, Credentials.from_environment, {f"{HMAC_SECRET}_FILE": path})
            self.assertIn(f"{HMAC_SECRET}_FILE names {path!r}, which holds no secret", str(error))
        for environ in ({API_KEYS: " , "}, {HMAC_SECRET: " "}):
            self.assertRaisesRegex(SecretUnavailable, "holds no", Credentials.from_environment, environ)

    def test_all_that_is_wrong(self) -> None:
        """Problems of both variables are reported at once."""
        environ = {f"{API_KEYS}_FILE": self.file(b""), f"{HMAC_SECRET}_FILE": self.file(b"")}
        error = str(self.assertRaises(SecretUnavailable, Credentials.from_environment, environ))
        self.assertIn("holds no key", error)
        self.assertIn("holds no secret", error)

    def test_comments(self) -> None:
        """In a file, lines that begin with a number sign are comments; in a variable nothing is."""
        path = self.file(b"# ours\none # two\n  # theirs, too\nthree\n")
        self.assertEqual(Credentials.from_environment({f"{API_KEYS}_FILE": path}).keys, (b"one # two", b"three"))
        self.assertEqual(Credentials.from_environment({API_KEYS: "#one"}).keys, (b"#one",))

    def test_no_text(self) -> None:
        """Keys are text: bytes that are not UTF-8 are a file of something else."""
        path = self.file(b"one\n\xff\xfa\n")
        error = self.assertRaises(SecretUnavailable, Credentials.from_environment, {f"{API_KEYS}_FILE": path})
        self.assertIn(f"{path!r}, which is not UTF-8", str(error))
        secret = {f"{HMAC_SECRET}_FILE": self.file(b"\xff\xfa\x00")}
        self.assertEqual(Credentials.from_environment(secret).hmac_secret, b"\xff\xfa\x00")

    def test_problems(self) -> None:
        """A file that cannot be read, and both forms at once, are errors that name the variable."""
        for environ, said in (
            ({f"{API_KEYS}_FILE": "/no/such/file"}, f"{API_KEYS}_FILE names '/no/such/file'"),
            ({HMAC_SECRET: "x", f"{HMAC_SECRET}_FILE": "/x"}, f"{HMAC_SECRET} and {HMAC_SECRET}_FILE"),
        ):
            error = self.assertRaises(SecretUnavailable, Credentials.from_environment, environ)
            self.assertIn(said, str(error))

    def test_not_shown(self) -> None:
        """The representation shows no credential."""
        shown = repr(Credentials.from_environment({API_KEYS: "key-value", HMAC_SECRET: "hmac-value"}))
        self.assertNotIn("key-value", shown)
        self.assertNotIn("hmac-value", shown)


class OutgoingTests(SynchronousTestCase):
    """The header of our own commands."""

    def test_preference(self) -> None:
        """The first key as bearer, else a signature, else an error that names both variables."""
        both = Credentials(keys=(b"one", b"two"), hmac_secret=b"s")
        self.assertEqual(authorization(both, "POST", "/x", b"", 1.0), "Bearer one")
        signed = authorization(Credentials(hmac_secret=b"s"), "POST", "/x", b"", 1.9)
        self.assertTrue(signed.startswith("HMAC-SHA256 timestamp=1,signature="))
        error = self.assertRaises(SecretUnavailable, authorization, Credentials(), "POST", "/x", b"", 1.0)
        self.assertIn(API_KEYS, str(error))
        self.assertIn(HMAC_SECRET, str(error))


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

    def test_shared(self) -> None:
        """One that several servers accept is written as it is."""
        self.assertEqual(write_token(self.directory, b"shared"), b"shared")
        self.assertEqual(read_token(self.directory), b"shared")

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
