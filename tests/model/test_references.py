"""Tests of `harn.model.references`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.references import (
    FunctionReference,
    SecretReference,
    binding_key,
    new_event_id,
    new_trace_id,
    parse_function_reference,
    parse_secret_reference,
    uuid7,
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


MOMENTS = st.floats(min_value=0, max_value=4e9)


class Uuid7Tests(SynchronousTestCase):
    @given(MOMENTS, st.binary(min_size=10, max_size=10))
    def test_is_a_valid_version_7_uuid(self, now: float, noise: bytes) -> None:
        """Whatever the noise, the standard library reads version 7, the variant of the RFC, and the millisecond."""
        made = UUID(uuid7(now, noise))
        self.assertEqual((made.version, made.variant), (7, RFC_4122))
        self.assertEqual(made.int >> 80, int(now * 1000))

    @given(st.lists(st.integers(min_value=0, max_value=2**47), min_size=2, unique=True))
    def test_sorts_by_time(self, milliseconds: list[int]) -> None:
        """Ids of different milliseconds sort as their times do."""
        stamps = [UUID(made).int >> 80 for made in sorted(uuid7(each / 1000) for each in milliseconds)]
        self.assertEqual(stamps, sorted(int(each / 1000 * 1000) for each in milliseconds))

    def test_every_bit_of_noise_counts(self) -> None:
        """74 bits are random: no two of a thousand ids of one moment are the same."""
        self.assertEqual(len({uuid7(1.0) for _ in range(1000)}), 1000)

    def test_threads_share_no_noise(self) -> None:
        """Several threads that make ids at once, of more than one block of random bytes, never make the same one."""
        with ThreadPoolExecutor(4) as pool:
            made = [each.result() for each in [pool.submit(lambda: [uuid7(1.0) for _ in range(500)]) for _ in range(8)]]
        self.assertEqual(len({each for some in made for each in some}), 4000)

    def test_prefixes(self) -> None:
        """The ids of events and traces begin with their kind."""
        self.assertTrue(new_event_id(1.0).startswith("trigger_evt_0"))
        self.assertTrue(new_trace_id(1.0).startswith("trace_0"))


class BindingKeyTests(SynchronousTestCase):
    def test_form(self) -> None:
        """A key names trigger and version."""
        self.assertEqual(binding_key("gh", 2), "gh@v2")
