"""References as a manifest writes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.references import (
    FunctionReference,
    SecretReference,
    parse_function_reference,
    parse_secret_reference,
)

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}_x", fullmatch=True)


class FunctionReferenceTests(SynchronousTestCase):
    @given(st.lists(NAMES, min_size=1, max_size=3), NAMES)
    def test_three_spellings_are_one(self, packages: list[str], function: str) -> None:
        """``m:f``, ``m::f`` and ``m.f`` name the same function, and it is written as ``m:f``."""
        module = ".".join(packages)
        found = {parse_function_reference(module + mark + function) for mark in (":", "::", ".")}
        self.assertEqual(found, {FunctionReference(module, function)})
        self.assertEqual([str(each) for each in found], [f"{module}:{function}"])

    def test_bare_name_is_in_lib(self) -> None:
        """A function without a module is looked up in ``lib``."""
        self.assertEqual(parse_function_reference("on_issue"), FunctionReference("lib", "on_issue"))

    def test_refuses(self) -> None:
        """Other targets, empty parts, keywords and invalid names are refused with an example."""
        for text in (
            "",
            ":",
            "a:",
            ":b",
            "a:b:c",
            "a:::b",
            "a..b",
            ".b",
            "a.",
            "a-b:c",
            "a:class",
            "a b:c",
            "a2a://h/p",
        ):
            error = self.assertRaises(ValueError, parse_function_reference, text)
            self.assertIn("handlers:on_issue", str(error))


class SecretReferenceTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Namespace, name with slashes, and a version or none."""
        self.assertEqual(parse_secret_reference("github/a/b"), SecretReference("github", "a/b"))
        self.assertEqual(parse_secret_reference("github/a@v2"), SecretReference("github", "a", "v2"))

    @given(st.from_regex(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(@[A-Za-z0-9_.-]+)?", fullmatch=True))
    def test_round_trip(self, text: str) -> None:
        """What was read is written as it was."""
        self.assertEqual(str(parse_secret_reference(text)), text)

    def test_refuses(self) -> None:
        """No namespace, no name, blanks, a newline at the end."""
        for text in ("", "token", "/token", "github/", "git hub/x", "github/x\n", "github/x@", "github/x@a/b"):
            error = self.assertRaises(ValueError, parse_secret_reference, text)
            self.assertIn("github/webhook-secret", str(error))
