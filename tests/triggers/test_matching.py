"""Match, filter, dedupe key."""

from __future__ import annotations

from typing import Any

import jmespath
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model import event as event_module
from harn.triggers.matching import FilterFailed, Ignored, Matched, Rules, compile_expression, is_truthy, matches
from tests.triggers.examples import event, spec

KINDS = st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6}){0,2}", fullmatch=True)


def decide(of: Any = None, always_claim: bool = False, **rules: Any) -> Any:
    """Decide on one event by the given rules."""
    return Rules.of(spec(**rules)).decide(event() if of is None else of, always_claim=always_claim)


class MatchesTests(SynchronousTestCase):
    @given(KINDS)
    def test_no_patterns_match_all(self, kind: str) -> None:
        """An empty list lets every kind through."""
        self.assertTrue(matches((), kind))

    @given(KINDS, KINDS)
    def test_exact(self, pattern: str, kind: str) -> None:
        """A pattern without ``.*`` matches itself alone."""
        self.assertEqual(matches((pattern,), kind), pattern == kind)

    @given(KINDS, KINDS)
    def test_family(self, family: str, member: str) -> None:
        """``issues.*`` matches what begins with ``issues.``: not ``issues``, not ``issuesx.opened``."""
        self.assertTrue(matches(("other", family + ".*"), f"{family}.{member}"))
        self.assertFalse(matches((family + ".*",), family))
        self.assertFalse(matches((family + ".*",), f"{family}x.{member}"))


class TruthTests(SynchronousTestCase):
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
            max_leaves=4,
        )
    )
    def test_agrees_with_jmespath(self, value: Any) -> None:
        """What we take for true is what ``value || ...`` takes for true."""
        marker = "no"
        chosen = jmespath.search("value || marker", {"value": value, "marker": marker})
        self.assertEqual(is_truthy(value), chosen is value or chosen != marker)


class ExpressionTests(SynchronousTestCase):
    def test_the_short_way_agrees_with_jmespath(self) -> None:
        """What is answered without the body is what JMESPath over the whole event gives."""
        subject = event(occurred_at="2026-01-01T00:00:00Z", headers={"x-id": "h", "a": "b"})
        for text in (
            "event.id",
            "event.kind",
            "event.dedupe_key",
            "event.occurred_at",
            "event.tenant_id",
            "event.headers",
            'event.headers."x-id"',
            "event.headers.missing",
            "event.id.below",
            "event.headers.a.b",
            "event.provider_payload.n",
            "event.raw_body",
            "event",
            "event.nothing",
            "id",
        ):
            expected = jmespath.search(text, {"event": subject.to_dict()})
            self.assertEqual(compile_expression(text).search(subject), expected, text)

    def test_the_short_way_does_not_parse_the_body(self) -> None:
        """A key from a header costs no parse of the body, however large."""
        parsed: list[bytes] = []
        self.patch(event_module, "parse_body", lambda body_format, body: parsed.append(body))
        subject = event()
        self.assertEqual(compile_expression('event.headers."x-id"').search(subject), "h-1")
        self.assertEqual(parsed, [])
        compile_expression("event.provider_payload").search(subject)
        self.assertEqual(parsed, [subject.raw_body])


class DecideTests(SynchronousTestCase):
    def test_match_comes_first(self) -> None:
        """An event of another kind is ignored before its filter is evaluated."""
        self.assertEqual(decide(events=("push",), filter="abs('x')"), Ignored("match"))

    def test_filter(self) -> None:
        """A truthy value keeps the event, zero included; a falsy one does not."""
        self.assertEqual(decide(filter="event.provider_payload.n"), Matched(None))
        self.assertEqual(decide(filter="`0`"), Matched(None))
        for falsy in ("event.missing", "`[]`", "`{}`", "''", "`false`"):
            self.assertEqual(decide(filter=falsy), Ignored("filter"))

    def test_expressions_that_fail_keep_the_event(self) -> None:
        """Errors of JMESPath and of Python beneath it, in a filter or in a key, are a verdict and never raise."""
        for text in ("abs('x')", "ceil(`1e400`)", "values(event.headers)[::0]", "sort(event)"):
            self.assertIsInstance(decide(filter=text), FilterFailed, text)
            self.assertIsInstance(decide(dedupe_key=text), FilterFailed, text)
        self.assertIsInstance(decide(dedupe_key="&id"), FilterFailed)

    def test_no_dedupe_key_is_no_claim(self) -> None:
        """Without ``dedupe_key`` nothing is claimed, unless the source always claims."""
        self.assertEqual(decide(), Matched(None))
        self.assertEqual(decide(always_claim=True), Matched("d-1"))
        for expression in ("event.dedupe_key", "event.missing"):
            self.assertEqual(decide(always_claim=True, dedupe_key=expression), Matched("d-1"))
        self.assertEqual(decide(always_claim=True, dedupe_key='event.headers."x-id"'), Matched("h-1"))

    def test_dedupe_key(self) -> None:
        """A string is used as it is, null means the provider's own, other values are their canonical JSON."""
        self.assertEqual(decide(dedupe_key='event.headers."x-id"'), Matched("h-1"))
        self.assertEqual(decide(dedupe_key="event.missing"), Matched("d-1"))
        self.assertEqual(decide(dedupe_key="event.provider_payload.n"), Matched("1"))
        found = decide(event(body=b'{"n": {"b": 1, "a": [2]}}'), dedupe_key="event.provider_payload.n")
        self.assertEqual(found, Matched('{"a":[2],"b":1}'))


class KeyTests(SynchronousTestCase):
    def key(self, of: Any = None, **rules: Any) -> str:
        """Return the key of one event by the given rules."""
        return Rules.of(spec(**rules)).key_of(event() if of is None else of)

    def test_what_it_would_be_claimed_under(self) -> None:
        """The key is the claim's: the expression's value, or the provider's own for null and where there is none."""
        for expression in ('event.headers."x-id"', "event.missing", "event.provider_payload.n", "event.headers"):
            self.assertEqual(Matched(self.key(dedupe_key=expression)), decide(dedupe_key=expression), expression)
        self.assertEqual(self.key(), "d-1")

    def test_of_any_event(self) -> None:
        """An event that the rules would not keep has its key, too."""
        rules = {"events": ("push",), "filter": "event.missing", "dedupe_key": "event.kind"}
        self.assertEqual(self.key(**rules), "issues.opened")

    def test_an_expression_that_fails(self) -> None:
        """Whatever an expression does on an event, there is a key: the provider's own."""
        for text in ("abs('x')", "ceil(`1e400`)", "values(event.headers)[::0]", "sort(event)", "&id"):
            self.assertEqual(self.key(dedupe_key=text), "d-1", text)

    @given(st.binary(max_size=40))
    def test_any_body(self, body: bytes) -> None:
        """Of any bytes there is a key, and it is a text."""
        self.assertIsInstance(self.key(event(body=body), dedupe_key="event.provider_payload.raw"), str)
