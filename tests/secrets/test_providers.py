"""From a reference to bytes, or to a message that says what to set."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.errors import SecretUnavailable
from harn.model.references import SecretReference, parse_secret_reference
from harn.secrets.providers import (
    LARGEST,
    MOST_NAMED,
    EnvironmentSecrets,
    FileSecrets,
    ISecretProvider,
    KeyringSecrets,
    SecretChain,
    secret_hash,
    variable_name,
)

GITHUB = SecretReference("github", "webhook-secret")
VARIABLE = "HARN_SECRET_GITHUB_WEBHOOK_SECRET"


class VariableNameTests(SynchronousTestCase):
    """Names of variables."""

    def test_names(self) -> None:
        """Upper case, with one underscore for whatever is neither letter nor digit."""
        for reference, name in (
            ("github/webhook-secret", "HARN_SECRET_GITHUB_WEBHOOK_SECRET"),
            ("github/webhook-secret@2", "HARN_SECRET_GITHUB_WEBHOOK_SECRET_V2"),
            ("a2a-push/x//y.z", "HARN_SECRET_A2A_PUSH_X_Y_Z"),
        ):
            self.assertEqual(variable_name(parse_secret_reference(reference)), name)


class ChainTests(SynchronousTestCase):
    """The chain, as the environment describes it."""

    def refused(self, environ: dict[str, str], reference: SecretReference = GITHUB) -> str:
        """Return the message with which ``reference`` does not resolve."""
        chain = SecretChain.from_environment(environ)
        return str(self.assertRaises(SecretUnavailable, chain.resolve, reference))

    def file(self, content: bytes) -> str:
        """Write a file."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_interfaces(self) -> None:
        """Every provider provides its interface."""
        for provider in (EnvironmentSecrets({}), FileSecrets({}), KeyringSecrets("harn")):
            verifyObject(ISecretProvider, provider)

    def test_environment(self) -> None:
        """The variable's bytes are the secret, also those that are not UTF-8."""
        chain = SecretChain.from_environment({VARIABLE: os.fsdecode(b"s\xff\n")})
        self.assertEqual(chain.resolve(GITHUB), b"s\xff\n")
        self.assertEqual(chain.files(), frozenset())

    def test_file(self) -> None:
        """The file's bytes without one trailing newline are the secret; the file is one to watch."""
        for content, value in (
            (b"s3cret\n", b"s3cret"),
            (b"s3cret\r\n", b"s3cret"),
            (b"a\nb\n", b"a\nb"),
            (b"\xff\n\n", b"\xff\n"),
            (b"x" * LARGEST, b"x" * LARGEST),
        ):
            path = self.file(content)
            chain = SecretChain.from_environment({f"{VARIABLE}_FILE": path})
            self.assertEqual(chain.resolve(GITHUB), value)
            self.assertEqual(chain.files(), frozenset([os.path.abspath(path)]))

    def test_trimmed(self) -> None:
        """A line end, white space and a byte order mark around a value are stripped; the warning names the secret."""
        for value, taken in (
            ("s3cret\n", "a line end"),
            ("s3cret\r\n", "a line end"),
            (" s3cret", "white space"),
            ("s3cret \t\n\n", "a line end and white space"),
            ("\ufeffs3cret", "a byte order mark"),
            ("\ufeff\n s3cret\n", "a byte order mark and a line end and white space"),
        ):
            chain = SecretChain.from_environment({VARIABLE: value})
            self.assertEqual(chain.resolve(GITHUB), b"s3cret")
            said = f"secret github/webhook-secret: {taken} around its value was taken off; store it without"
            self.assertEqual(chain.warnings(), (said,))
        kept = SecretChain.from_environment({VARIABLE: "it's a  secret to\neverybody"})
        self.assertEqual((kept.resolve(GITHUB), kept.warnings()), (b"it's a  secret to\neverybody", ()))
        usual = SecretChain.from_environment({f"{VARIABLE}_FILE": self.file(b"s3cret\n")})
        self.assertEqual((usual.resolve(GITHUB), usual.warnings()), (b"s3cret", ()))
        odd = SecretChain.from_environment({f"{VARIABLE}_FILE": self.file(b"\xef\xbb\xbfs3cret\n\n")})
        self.assertEqual((odd.resolve(GITHUB), len(odd.warnings())), (b"s3cret", 1))

    def test_nothing_but_white_space(self) -> None:
        """A value of which nothing is left is an error, and so is a text in UTF-16."""
        for content, reason in ((b" \n\n", "holds only"), ("s3cret".encode("utf-16"), "UTF-16")):
            chain = SecretChain.from_environment({f"{VARIABLE}_FILE": self.file(content)})
            said = str(self.assertRaises(SecretUnavailable, chain.resolve, GITHUB))
            self.assertIn(reason, said)
            self.assertIn("github/webhook-secret", said)
            self.assertNotIn("s3cret", said)

    def test_many_warnings(self) -> None:
        """However many secrets are odd, some are named and the others counted."""
        references = [parse_secret_reference(f"github/s{number}") for number in range(MOST_NAMED + 5)]
        chain = SecretChain.from_environment({variable_name(each): "x\n" for each in references})
        self.assertEqual(len(chain.resolve_many(references)[0]), MOST_NAMED + 5)
        self.assertEqual(len(chain.warnings()), MOST_NAMED + 1)
        self.assertEqual(chain.warnings()[-1], "and 5 more secrets with something around their values")

    def test_file_is_read_again(self) -> None:
        """A file that changed gives its new value: nothing is kept."""
        path = self.file(b"one")
        chain = SecretChain.from_environment({f"{VARIABLE}_FILE": path})
        chain.resolve(GITHUB)
        with open(path, "wb") as file:
            file.write(b"two")
        self.assertEqual(chain.resolve(GITHUB), b"two")

    def test_file_problems(self) -> None:
        """A file that cannot be used is named with its variable and the reason, and still watched."""
        directory = self.mktemp()
        os.mkdir(directory)
        fifo = self.mktemp()
        os.mkfifo(fifo)
        for path, reason in (
            (self.mktemp(), "No such file"),
            (directory, "Is a directory"),
            (fifo, "not a regular file"),
            ("nul\0byte", "null byte"),
            (self.file(b""), "empty"),
            (self.file(b"\n"), "empty"),
            (self.file(b"x" * (LARGEST + 1)), "larger than 64 KiB"),
        ):
            said = self.refused({f"{VARIABLE}_FILE": path})
            self.assertIn(f"{VARIABLE}_FILE names", said)
            self.assertIn(reason, said)
        chain = SecretChain.from_environment({f"{VARIABLE}_FILE": "/no/such/file"})
        self.assertRaises(SecretUnavailable, chain.resolve, GITHUB)
        self.assertEqual(chain.files(), frozenset(["/no/such/file"]))

    def test_first_wins(self) -> None:
        """The first provider that has the secret gives it, in the order that is configured."""
        environ = {VARIABLE: "variable", f"{VARIABLE}_FILE": self.file(b"file")}
        self.assertEqual(SecretChain.from_environment(environ).resolve(GITHUB), b"variable")
        environ["HARN_SECRET_PROVIDERS"] = " file , env,file"
        chain = SecretChain.from_environment(environ)
        self.assertEqual(chain.resolve(GITHUB), b"file")
        self.assertEqual(chain.describe(), "file -> env")

    def test_unset(self) -> None:
        """The message says exactly what to set, for every provider."""
        self.assertEqual(
            self.refused({}),
            f"secret github/webhook-secret is not set; set {VARIABLE}, "
            f"or set {VARIABLE}_FILE to the path of a file that holds it",
        )

    def test_empty(self) -> None:
        """An empty value is an error where it stands: an empty key would let anybody sign."""
        self.assertIn(f"{VARIABLE} is set but empty", self.refused({VARIABLE: "", f"{VARIABLE}_FILE": "/x"}))

    def test_unknown_provider(self) -> None:
        """A provider that does not exist is an error that names those that do."""
        for text in ("env,vault", ",", ""):
            error = self.assertRaises(SecretUnavailable, SecretChain.from_environment, {"HARN_SECRET_PROVIDERS": text})
            self.assertIn("env, file, keyring", str(error))

    def test_resolve_many(self) -> None:
        """Every value and every problem are given at once."""
        other = SecretReference("slack", "token")
        chain = SecretChain.from_environment({VARIABLE: "s3cret"})
        values, problems = chain.resolve_many([GITHUB, other, GITHUB])
        self.assertEqual(values, {GITHUB: b"s3cret"})
        self.assertEqual(list(problems), [other])
        self.assertIn("HARN_SECRET_SLACK_TOKEN", problems[other])

    def test_values_are_not_shown(self) -> None:
        """Neither the chain's representation nor a message shows a value."""
        environ = {VARIABLE: "s3cret-value", "HARN_SECRET_SLACK_TOKEN_FILE": self.file(b"s3cret-value" * 9000)}
        chain = SecretChain.from_environment(environ)
        chain.resolve(GITHUB)
        shown = repr(chain) + chain.describe() + self.refused(environ, SecretReference("slack", "token"))
        self.assertNotIn("s3cret-value", shown)


class KeyringTests(SynchronousTestCase):
    """The keyring, with a stand-in for the optional package."""

    def install(self, get_password: Any) -> SecretChain:
        """Make a chain whose keyring answers with ``get_password``; with None the package is not installed."""
        module: Any = None
        if get_password is not None:
            module = ModuleType("keyring")
            module.get_password = get_password
        self.patch(sys, "modules", {**sys.modules, "keyring": module})
        return SecretChain.from_environment({"HARN_SECRET_PROVIDERS": "env,keyring", "HARN_SECRET_NAMESPACE": "prod"})

    def test_found(self) -> None:
        """The service is our namespace, the user name the reference."""
        chain = self.install(
            lambda service, user: {("prod", "github/webhook-secret@2"): "caf\u00e9"}.get((service, user))
        )
        self.assertEqual(chain.resolve(SecretReference("github", "webhook-secret", "2")), "caf\u00e9".encode())
        said = str(self.assertRaises(SecretUnavailable, chain.resolve, GITHUB))
        self.assertIn(f"set {VARIABLE}, or run: keyring set prod github/webhook-secret", said)

    def test_not_installed(self) -> None:
        """Without the package the message says how to install it."""
        chain = self.install(None)
        said = str(self.assertRaises(SecretUnavailable, chain.resolve, GITHUB))
        self.assertIn("pip install 'harn[keyring]'", said)

    def test_failing(self) -> None:
        """A keyring that raises is reported by its class; its text, which might quote a value, is not."""

        def locked(service: str, user: str) -> str:
            raise RuntimeError("s3cret-value is locked")

        said = str(self.assertRaises(SecretUnavailable, self.install(locked).resolve, GITHUB))
        self.assertIn("RuntimeError", said)
        self.assertNotIn("s3cret-value", said)

    def test_empty(self) -> None:
        """An empty value is an error."""
        said = str(self.assertRaises(SecretUnavailable, self.install(lambda *_: "").resolve, GITHUB))
        self.assertIn("empty", said)

    def test_not_imported_unless_named(self) -> None:
        """By default the package is not imported."""
        self.install(None)
        SecretChain.from_environment({VARIABLE: "x"}).resolve(GITHUB)
        self.assertEqual(SecretChain.from_environment({}).describe(), "env -> file")


class HashTests(SynchronousTestCase):
    """Keyed hashes."""

    @settings(deadline=None)
    @given(st.binary(min_size=16, max_size=64), st.binary(), st.binary())
    def test_equal_for_equal(self, key: bytes, one: bytes, other: bytes) -> None:
        """Hashes under one key are equal exactly where the values are."""
        self.assertEqual(secret_hash(key, one) == secret_hash(key, other), one == other)

    def test_depends_on_the_key(self) -> None:
        """Under another key the same value has another hash, so that guesses cannot be tried without it."""
        self.assertNotEqual(secret_hash(b"k" * 16, b"v"), secret_hash(b"l" * 16, b"v"))

    def test_key_length(self) -> None:
        """A key that is too short to be one is refused."""
        for key in (b"", b"x" * 15, b"x" * 65):
            self.assertRaises(ValueError, secret_hash, key, b"v")
