"""What is wrong with triggers, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import ManifestInvalid
from harn.manifest.interfaces import PluginRules, ProviderRules, SettingProblem
from harn.manifest.load import check_document
from harn.manifest.model import CircuitSpec, RolloutSpec
from harn.manifest.vocabulary import instead
from harn.testing.manifests import trigger_text
from tests.manifest.rules import PROVIDERS, RULES, UNHURRIED, complaints, load, source

KEYS = [
    "id",
    "kind",
    "provider",
    "match",
    "handler",
    "secrets",
    "retry",
    "rollout",
    "path",
    "when",
    "filter",
    "timeout",
    "webhook",
]
VALUES = ["1", "1.5", "nan", "true", "[]", "{}", "[[]]", "[{}]", "''", "'x'", "1979-05-27", "07:32:00", "{ x = 1 }"]


OTHER = '{ signing_secret = "github/another" }'
"""Secrets of a trigger that cannot share a path with the others."""


def one(**changes: str | None) -> str:
    """Write a right trigger, with keys put in, replaced or (None) left out."""
    keys = {
        "id": '"gh"',
        "kind": '"webhook"',
        "provider": '"github"',
        "match": "{ events = [] }",
        "handler": '"handlers:on_issue"',
        "secrets": '{ signing_secret = "github/webhook-secret" }',
        **changes,
    }
    return "[[triggers]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)


class TriggerTests(SynchronousTestCase):
    """One trigger, one mistake."""

    def check(self, text: str, *expected: str) -> None:
        """Assert that ``text`` has exactly these problems (each given from its key on)."""
        found = complaints(text)
        self.assertEqual([problem.partition("): ")[2] or problem for problem in found], list(expected))

    def test_right(self) -> None:
        """The trigger that the others are made of has no problem."""
        self.assertEqual(complaints(one()), [])

    def test_place(self) -> None:
        """A problem names file, line, place, id, key, what is wrong and what to do."""
        self.assertEqual(
            complaints("\n" + one(timeout="30")),
            ['harn.toml:9: triggers[0] (gh): timeout: must be a string with a unit, got an integer; write it as "30s"'],
        )

    def test_missing(self) -> None:
        """Every key that must be there is asked for, with an example."""
        self.assertEqual(
            complaints("[[triggers]]\n"),
            [
                'harn.toml:1: triggers[0]: id: is missing; name the trigger, for example id = "gh"',
                "harn.toml:1: triggers[0]: handler: is missing; name a Python function, for example "
                'handler = "handlers:on_issue"',
                "harn.toml:1: triggers[0]: provider: is missing; say who sends the events, for example "
                'provider = "github"',
                'harn.toml:1: triggers[0]: kind: is missing; write kind = "webhook"',
                'harn.toml:1: triggers[0]: match: is missing; write for example match = { events = ["issues.*"] }, '
                "or events = []",
            ],
        )

    def test_ids(self) -> None:
        """An id is printable, has no white space, fits in a path of harn's and does not look like a version."""
        for text in ("", "a b", "a\\tb", "a/b", "-a", "gh@v2", "x" * 201):
            self.assertEqual(len(complaints(one(id=f'"{text}"', path='"/x"'))), 1, text)
        for text in ("gh", "github.issues", "a:b", "é", "gh@v", "v2", "x" * 200):
            self.assertEqual(complaints(one(id=f'"{text}"', path='"/x"')), [], text)
        self.check(one(id='"é"'), 'path: is missing, and the default "/triggers/é" is not usable; write path = "/..."')
        self.check(
            one(id='"gh@v2"'),
            "id: must not end like a version (@v and digits); harn adds the version itself, as in gh@v2",
        )

    def test_kinds(self) -> None:
        """Kinds that are known and not built yet say so; others are unknown."""
        later = 'kind: "cron" is not supported yet by provider "github"; known: "webhook"'
        self.check(one(kind='"cron"'), later)
        self.check(one(kind='"a2a-push"'), later.replace("cron", "a2a-push"))
        self.check(
            one(kind='"webhok"'),
            'kind: "webhok" is not known; did you mean "webhook"? known: "webhook", "a2a-push", "cron", "poll"',
        )
        self.check(
            one(kind="1"), 'kind: must be a string, got an integer; write one of: "webhook", "a2a-push", "cron", "poll"'
        )

    def test_providers(self) -> None:
        """A provider must be installed; one that is planned says so."""
        self.check(
            one(provider='"githb"'), 'provider: "githb" is not a provider of this installation; did you mean "github"?'
        )
        self.check(
            one(provider='"kafka"'),
            'provider: "kafka" is not supported yet; installed: a2a-push, github, webhook',
        )
        self.check(
            one(provider='"a2a-push"', secrets=None, kind='"webhook"'),
            'kind: "webhook" is not supported yet by provider "a2a-push"; known: "a2a-push"',
        )

    def test_unknown_keys(self) -> None:
        """The nearest known key is suggested, at every level, for hyphens too."""
        self.check(one(handlr='"x"'), 'handlr: unknown key; did you mean "handler"?')
        self.check(one(**{"dedupe-key": '"x"'}), 'dedupe-key: unknown key; did you mean "dedupe_key"?')
        self.check(one(retry="{ maxx = 1 }"), 'retry.maxx: unknown key; did you mean "max"?')
        self.check(one(match="{ evnts = [] }"), 'match.evnts: unknown key; did you mean "events"?')
        known = (
            "unknown key; known: alerts, allow_from, circuit, client_ca, dedupe_key, filter, handler, "
            "handler_secrets, id, kind, "
        )
        known += "match, max_outstanding, path, poll, provider, respond, respond_within, retry, rollout, secrets, "
        self.check(one(zzz="1"), f"zzz: {known}timeout, weight, when")
        self.check(one(**{'"a\\nb"': "1"}), f'"a\\nb": {known}timeout, weight, when')

    def test_circuit(self) -> None:
        """A table, with defaults for what it leaves out; by default there is none."""
        self.assertIsNone(load(one()).manifest.triggers["gh"].circuit)
        self.assertEqual(load(one(circuit="{}")).manifest.triggers["gh"].circuit, CircuitSpec())
        spec = load(one(circuit='{ failures = 3, reset = "5m", open = "dead_letter" }')).manifest.triggers["gh"].circuit
        self.assertEqual(spec, CircuitSpec(failures=3, reset=300.0, open="dead_letter"))
        self.check(one(circuit="{ failures = -1 }"), "circuit.failures: must be from 0 to 1000, got -1")
        self.check(one(circuit="{ x = 1 }"), "circuit.x: unknown key; known: failures, open, reset")

    def test_rollout(self) -> None:
        """Shares in percent become shares of 1, durations seconds; all but the first share may be left out."""
        text = one(rollout='{ percent = 10, step = "20%", every = "5m", max_failures = 2.5 }')
        spec = load(text).manifest.triggers["gh"].rollout
        self.assertEqual(spec, RolloutSpec(percent=0.1, step=0.2, every=300.0, max_failures=0.025))
        self.assertEqual(
            load(one() + '[triggers.rollout]\npercent = "0.5%"\n').manifest.triggers["gh"].rollout,
            RolloutSpec(percent=0.005, step=0.0, every=60.0, max_failures=None),
        )
        for shortest in ("1s", "1000ms", " 1.0s "):
            text = one(rollout=f'{{ percent = 10, step = 20, every = "{shortest}" }}')
            spec = load(text).manifest.triggers["gh"].rollout
            self.assertEqual(spec, RolloutSpec(percent=0.1, step=0.2, every=1.0), shortest)
        held = load(one(rollout='{ percent = 99.9, step = 0, every = "1m" }')).manifest.triggers["gh"].rollout
        self.assertEqual(held, RolloutSpec(percent=0.999))
        self.assertIsNone(load(one()).manifest.triggers["gh"].rollout)

    def test_wrong_rollouts(self) -> None:
        """Types, ranges, keys that are unknown, missing, or count only with another."""
        self.check(one(rollout="10"), "rollout: must be a table, got an integer")
        self.check(one(rollout="{}"), "rollout.percent: is missing; say which share begins, for example percent = 10")
        what = 'write a percentage from 0 to 100, for example "10%"'
        for value, said in (
            ("0", "must be over 0%"),
            ('"0%"', "must be over 0%"),
            ("100", "must be under 100%"),
            ("100.0", "must be under 100%"),
            ("-1", f"must be a share, got -1; {what}"),
            ("nan", f'must be a share, got "nan"; {what}'),
            ("1e300", f'must be a share, got "1e+300"; {what}'),
            ("9" * 18, f"must be a share, got {'9' * 18}; {what}"),
            ("9" * 19, None),  # no number of TOML's
            ('"ten"', f'must be a share, got "ten"; {what}'),
            ('""', f'must be a share, got ""; {what}'),
            ('"ten; or so"', f'must be a share, got "ten; or so"; {what}'),
            ("0.1", "0.1 could be 0.1 % or 10 %; write it with a % in quotes"),
            ("true", 'must be a share, got a boolean; write for example "10%"'),
            ("[10]", 'must be a share, got an array; write for example "10%"'),
        ):
            if said is None:
                self.assertEqual(len(complaints(one(rollout=f"{{ percent = {value} }}"))), 1)
            else:
                self.check(one(rollout=f"{{ percent = {value} }}"), f"rollout.percent: {said}")
        for more, expected in (
            ("step = -1", f"rollout.step: must be a share, got -1; {what}"),
            ("max_failures = 101", f"rollout.max_failures: must be a share, got 101; {what}"),
            ("max_failures = 100", "rollout.max_failures: must be under 100%"),
            (
                "step = 5",
                'rollout.every: is missing: step needs it; say how long each step lasts, for example every = "1m"',
            ),
            ("every = '1m'", "rollout.every: counts only with step; set that, or remove every"),
            (
                "step = 5, every = 60",
                'rollout.every: must be a string with a unit, got an integer; write it as "60s"',
            ),
            ("step = 5, every = '999ms'", 'rollout.every: must be at least 1s, got "999ms"; write for example "1s"'),
            ("step = 5, every = '0s'", 'rollout.every: must be longer than 0; write for example "30s"'),
            ("max-failures = 5", 'rollout.max-failures: unknown key; did you mean "max_failures"?'),
        ):
            self.check(one(rollout=f"{{ percent = 10, {more} }}"), expected)
        place = "harn.toml:10: triggers[0] (gh): rollout.step: "
        found = complaints(one() + "[triggers.rollout]\npercent = 5\nstep = 'x'\n")
        self.assertEqual(found, [f'{place}must be a share, got "x"; {what}'])

    def test_not_supported_yet(self) -> None:
        """Keys of the public system that are not built are refused, unless they ask for what happens anyway."""
        for key in ("concurrency", "throttle", "rate_limit", "debounce", "singleton", "batch", "window", "budget"):
            self.check(one(**{key: "{ max = 1 }"}), f"{key}: is not supported yet; remove it")
        self.check(one(sources="[]"), "sources: is not supported yet; remove it")
        self.check(one(autonomy_tier='"shadow"'), "autonomy_tier: is not supported yet; remove it")
        self.check(one(allow_cleartext="0"), "allow_cleartext: is not supported yet; remove it")
        self.check(one(autonomy_tier='"act_auto"', priority='"normal"', allow_cleartext="false", dlq_alerts="[]"))

    def test_handlers(self) -> None:
        """Handlers are Python functions; other targets are known and not built yet."""
        self.check(
            one(handler='"handlers:on-issue"'),
            'handler: must be a Python function, got "handlers:on-issue"; write module:function, as handlers:on_issue',
        )
        for scheme in ("a2a", "worker", "persona"):
            self.check(
                one(handler=f'"{scheme}://x/y"'),
                f"handler: {scheme}:// is not supported yet; name a Python function, for example handlers:on_issue",
            )
        self.assertEqual(len(complaints(one(handler='"ftp://x"'))), 1)
        self.check(one(when="1"), 'when: must be a string, got an integer; write for example "handlers:on_issue"')

    def test_events(self) -> None:
        """A pattern ends in .* or has no star."""
        self.check(one(match='{ events = ["issues.*", "a", "a.b.*"] }'))
        self.check(
            one(match='{ events = ["a", "*"] }'),
            'match.events[1]: must be a pattern, got "*"; leave events empty to match every event',
        )
        for pattern in ("a*", "*.a", ".*", "a.*.b", "a b", ""):
            self.assertEqual(len(complaints(one(match=f'{{ events = ["{pattern}"] }}'))), 1, pattern)
        self.check(
            one(match='{ events = "a" }'),
            'match.events: must be an array of strings, got a string; write ["a"]',
        )
        self.check(one(match="[]"), "match: must be a table, got an array")

    def test_paths(self) -> None:
        """A path is one that every client sends unchanged, in one place or the same in two."""
        self.check(one(path='"/a"', match='{ path = "/a" }'))
        self.check(
            one(path='"/a"', match='{ path = "/b" }'),
            'match.path: is "/b", and path is "/a"; give one of them, or the same twice',
        )
        self.check(one(path='"a"'), 'path: must start with /; for example "/a"')
        self.check(one(path='"/a?b"'), "path: must have no query and no fragment; routes match the path alone")
        for path in ("/a b", "/a%2Fb", "/é", "/a\\u0000", "/a//b", "//", "/a/../b", "/.", "/" + "x" * 1024, ""):
            self.assertEqual(len(complaints(one(path=f'"{path}"'))), 1, path)
        self.assertEqual(len(complaints(one(path="1"))), 1)

    def test_paths_of_ours(self) -> None:
        """Paths that harn serves itself are refused and say whose they are; what only looks like them is not."""
        self.check(
            one(path='"/health"'),
            'path: "/health" is a path of harn itself (the health check); '
            "choose another, for example one under /hooks/",
        )
        for path in ("/", "/healthz", "/readyz/", "/metrics", "/admin", "/admin/", "/admin/x", "/console/a", "/mcp"):
            self.assertEqual(len(complaints(one(path=f'"{path}"'))), 1, path)
            self.assertEqual(len(complaints(one(match=f'{{ path = "{path}" }}'))), 1, path)
        for path in ("/administer", "/health/x", "/mcp-hook", "/hooks/admin"):
            self.check(one(path=f'"{path}"'))

    def test_expressions(self) -> None:
        """JMESPath that does not parse is refused, with the place in it."""
        self.check(one(filter="\"event.kind == 'a'\"", dedupe_key='"event.id"'))
        hint = "; the event is `event`, for example event.kind"
        self.check(
            one(filter='"event.kind =="'), f'filter: is not JMESPath: it ends too early, after "event.kind =="{hint}'
        )
        self.check(
            one(filter='"event kind"'),
            f'filter: is not JMESPath: at character 7, before "kind": Unexpected token: kind{hint}',
        )
        self.check(
            one(dedupe_key='"lenght(event)"'),
            f'dedupe_key: is not JMESPath: there is no function "lenght"; did you mean "length"?{hint}',
        )
        self.check(one(filter='" "'), f"filter: is not JMESPath: it is empty{hint}")
        self.check(one(filter="true"), "filter: must be a string with JMESPath in it, got a boolean")

    def test_retry(self) -> None:
        """Numbers have their ranges, and what only exponential waits use is not taken without them."""
        self.check(one(retry="{ max = 101 }"), "retry.max: must be from 0 to 100, got 101")
        self.check(
            one(retry="{ max = true }"),
            "retry.max: must be a whole number, got a boolean; write digits alone, without quotes",
        )
        self.check(one(retry="{ retention_days = 0 }"), "retry.retention_days: must be from 1 to 3650, got 0")
        self.check(
            one(retry='{ backoff = "expo" }'),
            'retry.backoff: "expo" is not known; write one of: "immediate", "svix", "exponential", "linear"',
        )
        self.check(
            one(retry='{ base = "1s" }'),
            'retry.base: counts only with backoff = "exponential" or "linear"; remove base, or set the backoff',
        )
        self.check(
            one(retry="{ jitter = 0.1 }"),
            "retry.jitter: counts only where there are waits; remove jitter, or set a backoff or a schedule",
        )
        self.check(
            one(retry='{ backoff = "exponential", base = "2h" }'),
            "retry.base: cap must not be shorter than base; raise the cap",
        )
        exponential = one(retry='{ backoff = "exponential", jitter = nan }')
        self.check(exponential, "retry.jitter: must be a finite number")
        self.check(exponential.replace("nan", "1.5"), "retry.jitter: must be from 0 to 1, got 1.5")
        self.check(
            one(retry="{ max = " + "9" * 5000 + " }").replace("9" * 5000, "9" * 4000),
            "retry.max: must be from 0 to 100, got a number that large",
        )

    def test_schedule(self) -> None:
        """A schedule is a few durations, and there is no backoff beside it."""
        self.check(
            one(retry='{ schedule = "5s" }'),
            'retry.schedule: must be an array of durations, got a string; write ["5s"]',
        )
        self.check(
            one(retry="{ schedule = [] }"), 'retry.schedule: is empty; write at least one wait, for example ["5s"]'
        )
        self.check(
            one(retry='{ schedule = ["5s", 60] }'),
            'retry.schedule[1]: must be a string with a unit, got an integer; write it as "60s"',
        )
        self.check(
            one(retry='{ schedule = ["0s"] }'),
            'retry.schedule[0]: must be longer than 0; write for example "30s"',
        )
        self.check(
            one(retry='{ schedule = ["1s"], backoff = "linear" }'),
            "retry.schedule: is given, and so is backoff; keep one of them: a schedule names each wait itself",
        )
        self.check(
            one(retry='{ schedule = ["1s"], cap = "1h" }'),
            'retry.cap: counts only with backoff = "exponential" or "linear"; remove cap, or set the backoff',
        )
        many = ", ".join(['"1s"'] * 101)
        self.check(
            one(retry=f"{{ schedule = [{many}] }}"),
            "retry.schedule: must have at most 100 waits, got 101; the last one repeats",
        )

    def test_durations(self) -> None:
        """A duration has a unit, is over 0 and under ten years."""
        self.check(one(timeout='"0s"'), 'timeout: must be longer than 0; write for example "30s"')
        self.check(
            one(timeout='"11y"'),
            "timeout: must be a duration, got '11y'; write a number and ms, s, m, h, d or w, for example \"30s\"",
        )
        self.check(one(timeout='"5000w"'), "timeout: '5000w' is longer than ten years")
        self.check(one(timeout="1979-05-27"), 'timeout: must be a string with a unit, got a date; write it as "30s"')

    def test_secrets(self) -> None:
        """Names are those of the provider, references lie in its namespace, and none is ever repeated."""
        self.check(one(secrets='{ signing_secret = ["github/new", "github/old"] }'))
        self.check(
            one(secrets=None),
            'secrets.signing_secret: is missing: provider "github" requires it; '
            'write secrets = { signing_secret = "github/signing-secret" }',
        )
        self.check(one(secrets="{ signing_secret = [] }"), "secrets.signing_secret: is empty; name at least one secret")
        self.check(
            one(secrets='{ signing_secret = "github/a", signing_secrt = "github/b" }'),
            'secrets.signing_secrt: provider "github" has no such secret; did you mean "signing_secret"?',
        )
        self.check(one(secrets="1"), "secrets: must be a table, got an integer")
        for value in ('"hunter2"', '["github/a", "webhook/hunter2"]', '"hunter2/x y"', '["hunter2"]'):
            found = complaints(one(secrets=f"{{ signing_secret = {value} }}"))
            self.assertEqual(len(found), 1)
            self.assertNotIn("hunter2", found[0])
        self.assertEqual(len(complaints(one(secrets="{ signing_secret = 5 }"))), 1)
        self.assertEqual(len(complaints(one(secrets="{ signing_secret = [5] }"))), 1)

    def test_handler_secrets(self) -> None:
        """References of any namespace, none of which is ever repeated; without the key all are allowed."""
        for written, read in (
            (None, None),
            ("[]", ()),
            ('["github/token", "shop/key@2"]', ("github/token", "shop/key@2")),
        ):
            manifest = load(one(handler_secrets=written)).manifest
            self.assertEqual(manifest.triggers["gh"].handler_secrets, read)
        for value in ('["hunter2"]', '["hunter2/x y"]', '["github/a", "hunter2"]'):
            found = complaints(one(handler_secrets=value))
            self.assertEqual(len(found), 1)
            self.assertIn("must be a secret reference; write namespace/name", found[0])
            self.assertNotIn("hunter2", found[0])
        self.assertEqual(len(complaints(one(handler_secrets="[5]"))), 1)
        self.assertEqual(len(complaints(one(handler_secrets="5"))), 1)

    def test_provider_table(self) -> None:
        """A provider's own table is checked by its schema; the table of another is refused."""
        hook = one(provider='"webhook"', secrets='{ signing_secret = "webhook/s" }')
        self.check(hook + "[triggers.webhook]\nsignature_scheme = 'slack'\n")
        self.check(
            hook + "[triggers.webhook]\nsignature_scheme = 'slak'\ntags = ['a', 1]\nsorce = 'x'\n",
            'webhook.signature_scheme: "slak" is not known; did you mean "slack"? '
            'known: "github", "slack", "standard", "stripe"',
            "webhook.tags[1]: must be a string",
            'webhook.sorce: unknown key; did you mean "source"?',
        )
        self.check(hook + "webhook = 1\n", "webhook: must be a table, got an integer")
        self.check(one(webhook="{}"), 'webhook: is the table of provider "webhook", not of "github"; remove it')

    def test_twins(self) -> None:
        """Two triggers with one id, or on one path, are a problem that names both."""
        self.assertEqual(
            complaints(one() + one()),
            [
                'harn.toml:9: triggers[1] (gh): id: "gh" is also the id of triggers[0] (gh) on line 2; '
                "give each trigger an id of its own"
            ],
        )
        self.assertEqual(
            complaints(one(match='{ path = "/in" }') + one(id='"b"', path='"/in"', secrets=OTHER)),
            [
                'harn.toml:15: triggers[1] (b): path: "/in" is also the path of triggers[0] (gh) on line 5; '
                "give one of them another path, or both the same provider, settings and secrets, to share it"
            ],
        )
        self.check(
            one() + one(id='"b"', path='"/triggers/gh"', secrets=OTHER),
            'path: "/triggers/gh" is also the path of triggers[0] (gh) on line 1; '
            "give one of them another path, or both the same provider, settings and secrets, to share it",
        )

    def test_sender_without_a_provider(self) -> None:
        """For a sender without a provider the hint names the one that takes its way of signing."""
        known = ("standard", "hmac", "token", "basic", "github", "forgejo")
        for sender, expected in (
            ("githb", 'did you mean "github"?'),
            ("clerk", 'write provider = "standard", which takes what clerk sends'),
            ("Hub-Spot", 'write provider = "hmac", which takes what Hub-Spot sends'),
            ("codeberg", 'write provider = "forgejo", which takes what codeberg sends'),
        ):
            self.assertEqual(instead(sender, known), expected)
        hint = instead("quux", known)
        for name in ("standard", "hmac", "token", "basic"):
            self.assertIn(f'"{name}" for', hint)
        self.assertEqual(instead("quux", ("github",)), "known: github")

    def test_shared_path(self) -> None:
        """Triggers with equal provider, settings and secrets may share a path; one of them may give the answer."""
        third = one(id='"c"', path='"/in"', respond='"handler"')
        both = one(path='"/in"') + one(id='"b"', path='"/in"', respond='{ status = 204, body = "" }')
        self.check(both)
        self.check(
            both + third,
            'respond: "/in" is shared, and trigger "b" gives the answer already; keep respond in one of them',
        )

    def test_respond(self) -> None:
        """``respond`` is the handler's or a table, and its time is at most 30 s."""
        self.check(one(respond='"handler"', respond_within='"30s"'))
        hint = 'write "handler", or a table, for example { status = 200, body = "ok", content_type = "text/plain" }'
        self.check(one(respond='"handlr"'), f'respond: must be "handler" or a table, got "handlr"; {hint}')
        self.check(one(respond="7"), f'respond: must be "handler" or a table, got an integer; {hint}')
        self.check(
            one(respond="{ status = 500, boddy = 1 }"),
            "respond.boddy: unknown key; known: status, body, content_type",
            "respond.status: must be from 200 to 299, got 500",
        )
        self.check(one(respond='{ body = "" }'))
        self.check(
            one(respond='{ status = "", content_type = "" }'),
            "respond.status: must be a whole number, got a string; write digits alone, without quotes",
            "respond.content_type: is empty",
        )
        self.check(
            one(respond='"handler"', respond_within='"31s"'),
            'respond_within: must be at most 30s, got "31s"; write "30s" or less',
        )
        self.check(
            one(respond_within='"2s"'),
            'respond_within: counts only with respond = "handler"; write respond = "handler", or remove this',
        )

    def test_twins_in_match(self) -> None:
        """The place of a path is where it is written."""
        self.check(
            one(path='"/in"') + one(id='"b"', match='{ path = "/in" }', secrets=OTHER),
            'match.path: "/in" is also the path of triggers[0] (gh) on line 8; '
            "give one of them another path, or both the same provider, settings and secrets, to share it",
        )

    def test_not_tables(self) -> None:
        """Triggers that are not tables, or not an array, are refused with a message that says so."""
        self.assertEqual(complaints("triggers = [1]"), ["harn.toml:1: triggers[0]: must be a table, got an integer"])
        self.assertEqual(
            complaints("[triggers]\nid = 1\n"),
            ["harn.toml:1: triggers: must be an array of tables; begin each trigger with [[triggers]]"],
        )

    @UNHURRIED
    @given(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)))
    def test_values_of_any_type(self, changes: dict[str, str]) -> None:
        """Whatever type stands where, there are problems with lines, or there is a manifest, and no crash."""
        try:
            load(one(**changes))
        except ManifestInvalid as error:
            self.assertTrue(all(problem.line for problem in error.problems))


class _Raising:
    """A plugin's schema that breaks."""

    def check(self, table: Mapping[str, Any]) -> tuple[Any, Sequence[SettingProblem]]:
        raise SystemExit("bye")


class _Odd(_Raising):
    """A plugin's schema whose settings have no JSON form."""

    def check(self, table: Mapping[str, Any]) -> tuple[Any, Sequence[SettingProblem]]:
        return object(), ()


class PluginTests(SynchronousTestCase):
    """Third-party schemas."""

    def test_a_schema_that_fails(self) -> None:
        """Anything it raises is a problem of its table."""
        for schema, expected in ((_Raising(), "SystemExit: bye"), (_Odd(), "TypeError: ")):
            rules = {
                "github": ProviderRules(
                    provider="github",
                    kinds=("webhook",),
                    table="github",
                    schema=schema,
                    required_secrets=("signing_secret",),
                )
            }
            error = self.assertRaises(
                ManifestInvalid, check_document, source(trigger_text("gh")), None, PluginRules(rules, RULES.schemes)
            )
            self.assertIn(f'github: the plugin of provider "github" failed on it: {expected}', str(error))

    def test_no_providers(self) -> None:
        """An installation without providers refuses every trigger, and does not fail."""
        error = self.assertRaises(
            ManifestInvalid, check_document, source(one(provider='"x"')), None, PluginRules({}, {})
        )
        self.assertIn("remove it", str(error))
        self.assertEqual(len(PROVIDERS), 3)
