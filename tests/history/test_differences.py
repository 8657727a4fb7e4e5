"""What differs between two specs, settings, bundles, and generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, to_builtins
from twisted.trial.unittest import SynchronousTestCase

from harn.history.differences import (
    CodeComparison,
    Recorded,
    digest_changes,
    field_changes,
    file_changes,
    generation_diff,
    secret_changes,
    setting_changes,
)
from harn.manifest.changes import changed_fields, changed_settings
from harn.manifest.model import RetrySpec, RolloutSpec, TriggerSpec
from harn.manifest.settings import DrainSettings, OrchestratorSettings, ReloadSettings, VmSettings
from harn.secrets.providers import secret_hash
from harn.testing.manifests import manifest_text, trigger_text
from harn.vm.bundle import Bundle, Module, closure, make_bundle, source_digest
from harn.wire import canonical_json
from tests.reload.readings import KEY, Folder
from tests.triggers.examples import spec


def diffed(*recorded: Any) -> Any:
    """Compare two generations; give the answer as JSON."""
    return msgspec.json.decode(msgspec.json.encode(generation_diff(*recorded)))


def shown(changes: Any) -> list[tuple[Any, ...]]:
    """Return changes as plain tuples."""
    return [tuple(to_builtins(each).values()) for each in changes]


def module(name: str, source: str = "", *imports: str, path: str | None = None) -> Module:
    """Make a module that imports others."""
    return Module(
        name=name,
        path=path or f"/srv/{name}.py",
        source=source.encode(),
        is_package=False,
        imports=frozenset(imports),
    )


def bundle(*modules: Module, included: frozenset[str] = frozenset()) -> Bundle:
    """Put modules together."""
    return make_bundle({each.name: each for each in modules}, included)


SPECS = st.builds(
    spec,
    path=st.sampled_from(["/a", "/b"]),
    handler=st.sampled_from(["m:f", "m:g"]),
    events=st.sampled_from([(), ("push",), ("push", "issues.*")]),
    when=st.sampled_from([None, "m:p"]),
    filter=st.sampled_from([None, "event.kind"]),
    timeout=st.sampled_from([0.25, 30.0, 90.0]),
    retry=st.builds(
        RetrySpec,
        max=st.integers(0, 2),
        base=st.sampled_from([1.0, 60.0]),
        schedule=st.sampled_from([(), (5.0, 90.0)]),
    ),
    secrets=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([("github/x",), ("github/x", "github/y")])),
    settings=st.none() | st.dictionaries(st.sampled_from(["timeout", "x.y"]), st.integers(0, 2) | st.booleans()),
)


class FieldTests(SynchronousTestCase):
    """`field_changes`."""

    def test_as_written(self) -> None:
        """Durations have their unit, and one secret is one; what is not there is None."""
        old = spec(secrets={"signing_secret": ("github/a",)}, timeout=30.0)
        new = spec(
            timeout=0.25,
            retry=RetrySpec(max=3, backoff="exponential", cap=7200.0, jitter=0.1),
            secrets={"signing_secret": ("github/b", "github/a")},
            when="handlers:should",
            events=("push",),
        )
        self.assertEqual(
            shown(field_changes(old, new)),
            [
                ("match.events", [], ["push"]),
                ("retry.backoff", "immediate", "exponential"),
                ("retry.cap", "1h", "2h"),
                ("retry.jitter", None, 0.1),
                ("retry.max", 0, 3),
                ("secrets.signing_secret", "github/a", ["github/b", "github/a"]),
                ("timeout", "30s", "250ms"),
                ("when", None, "handlers:should"),
            ],
        )

    def test_own_table(self) -> None:
        """Values of the provider's own table stay as they are, whatever its keys are called."""
        old = spec(provider="a2a-push", settings={"timeout": 30, "base": 1.5, "gone": {"x": [1]}})
        new = spec(provider="a2a-push", settings={"timeout": True, "base": 2.5})
        self.assertEqual(
            shown(field_changes(old, new)),
            [("a2a_push.base", 1.5, 2.5), ("a2a_push.gone", {"x": [1]}, None), ("a2a_push.timeout", 30, True)],
        )

    def test_one_side(self) -> None:
        """Of a trigger that comes, or goes, all that it says beside the defaults."""
        only = spec("gh", timeout=60.0, settings={"x": 1})
        said = [("github", {"x": 1}), ("handler", "handlers:on_event"), ("kind", "webhook"), ("path", "/triggers/gh")]
        said += [("provider", "github"), ("timeout", "1m")]
        self.assertEqual(shown(field_changes(None, only)), [(key, None, value) for key, value in said])
        self.assertEqual(shown(field_changes(only, None)), [(key, value, None) for key, value in said])
        self.assertEqual(field_changes(None, None), ())

    def test_rollout(self) -> None:
        """Whether a reload or a restart applies a change does not count as a change."""
        new = msgspec.structs.replace(spec(), rollout=RolloutSpec(percent=0.1))
        self.assertEqual(field_changes(spec(), new), ())

    @given(SPECS, SPECS)
    def test_names(self, old: TriggerSpec, new: TriggerSpec) -> None:
        """The keys are those that a reload's report names; back again, the values change places; all of it is JSON."""
        found = field_changes(old, new)
        self.assertEqual(tuple(each.key for each in found), changed_fields(old, new))
        self.assertEqual(shown(found), [(key, after, before) for key, before, after in shown(field_changes(new, old))])
        for each in (*found, *field_changes(None, new), *field_changes(old, None)):
            canonical_json(to_builtins(each))
            self.assertNotEqual(canonical_json(each.old), canonical_json(each.new))


class SettingTests(SynchronousTestCase):
    """`setting_changes`."""

    def test_as_written(self) -> None:
        """Each says both values, and what brings it into force."""
        old = OrchestratorSettings()
        new = OrchestratorSettings(
            recover="manual",
            allowed_origins=("https://a.test",),
            drain=DrainSettings(deadline_seconds=5.0),
            reload=ReloadSettings(timeout=90.0, confirm_within=60.0, revert_on_failures=0.125),
            vm=VmSettings(include=("rules/*.py",)),
        )
        self.assertEqual(
            shown(setting_changes(old, new)),
            [
                ("orchestrator.allowed_origins", [], ["https://a.test"], "reload"),
                ("orchestrator.drain.deadline_seconds", 30.0, 5.0, "reload"),
                ("orchestrator.recover", "auto", "manual", "restart"),
                ("orchestrator.reload.confirm_within", None, "1m", "reload"),
                ("orchestrator.reload.revert_on_failures", None, "12.5%", "reload"),
                ("orchestrator.reload.timeout", "30s", "90s", "reload"),
                ("orchestrator.vm.include", [], ["rules/*.py"], "reload"),
            ],
        )
        self.assertEqual(setting_changes(new, new), ())
        self.assertEqual(
            [each.key for each in setting_changes(old, new)],
            [f"orchestrator.{key}" for key in changed_settings(old, new)],
        )


class SecretTests(SynchronousTestCase):
    """`secret_changes`."""

    def test_digests(self) -> None:
        """Added, rotated, gone: the beginning of keyed digests, never a value, never enough to try guesses on."""
        a, b = secret_hash(KEY, b"hunter2"), secret_hash(KEY, b"hunter3")
        found = secret_changes(
            {"x/gone": a, "x/same": a, "x/new-value": a}, {"x/came": b, "x/same": a, "x/new-value": b}
        )
        self.assertEqual(
            shown(found), [("x/came", None, b[:18]), ("x/gone", a[:18], None), ("x/new-value", a[:18], b[:18])]
        )
        self.assertRegex(b[:18], r"^keyed:[0-9a-f]{12}$")


class FileTests(SynchronousTestCase):
    """`file_changes` and `digest_changes`."""

    def test_changes(self) -> None:
        """Added, modified and removed files by path, each with its digests; a moved module is two."""
        old = bundle(module("a", "1"), module("b", "2"), module("c", "3"), module("d", "4"))
        new = bundle(module("a", "1"), module("b", "22"), module("d", "4", path="/srv/x/d.py"), module("e", "5"))
        found = file_changes(old, new)
        self.assertEqual(
            [(each.path, each.change, each.old, each.new, each.diff) for each in found],
            [
                ("/srv/b.py", "modified", old.modules["b"].digest, new.modules["b"].digest, UNSET),
                ("/srv/c.py", "removed", old.modules["c"].digest, None, UNSET),
                ("/srv/d.py", "removed", old.modules["d"].digest, None, UNSET),
                ("/srv/e.py", "added", None, new.modules["e"].digest, UNSET),
                ("/srv/x/d.py", "added", None, new.modules["d"].digest, UNSET),
            ],
        )
        self.assertEqual(file_changes(old, old, diffs=True), ())

    def test_diffs(self) -> None:
        """On request each says what differs in it; all of them together stay within bounds."""
        old, new = bundle(module("a", "x\n")), bundle(module("a", "y\n"))
        (found,) = file_changes(old, new, diffs=True)
        self.assertEqual(found.diff, "--- /srv/a.py\n+++ /srv/a.py\n@@ -1 +1 @@\n-x\n+y\n")
        many = bundle(*(module(f"m{number:02}", "line\n" * 60_000) for number in range(30)))
        diffs = [each.diff or "" for each in file_changes(old, many, diffs=True)]
        self.assertEqual(len(diffs), 31)
        self.assertLess(sum(map(len, diffs)), 1_050_000)
        self.assertIn("the rest is left out", diffs[-1])

    def test_secret_files(self) -> None:
        """A file whose digest is keyed shows its beginning only; one that cannot be read says so."""
        keyed = secret_hash(KEY, b"certificate")
        found = digest_changes({"/tls": keyed, "/key": keyed}, {"/tls": "unreadable", "/key": keyed})
        self.assertEqual(shown(found), [("/tls", "modified", keyed[:18], "unreadable")])


class CodeTests(SynchronousTestCase):
    """`closure` and `CodeComparison`."""

    def test_closure(self) -> None:
        """A module, what it imports however deep and in circles, and what is included; nothing else."""
        modules = module("a", "", "b"), module("b", "", "c", "a"), module("c"), module("d"), module("e", "", "c")
        found = bundle(*modules, included=frozenset(("e",)))
        self.assertEqual([closure(found, name) for name in "acd"], [("a", "b", "c", "e"), ("c", "e"), ("c", "d", "e")])
        self.assertRaises(KeyError, closure, found, "absent")

    def test_of_a_trigger(self) -> None:
        """Only files of the handler's and the predicate's closures are named."""
        old = bundle(module("h", "1", "deep"), module("p", "1"), module("other", "1"), module("deep", "1"))
        new = bundle(module("h", "1", "deep"), module("p", "2"), module("other", "2"), module("deep", "2"))
        code = CodeComparison(old, new).changes
        plain, asking = spec(handler="h:f"), spec(handler="h:f", when="p:f")
        self.assertEqual([each.path for each in code(plain, plain)], ["/srv/deep.py"])
        self.assertEqual([each.path for each in code(asking, asking)], ["/srv/deep.py", "/srv/p.py"])

    def test_comes_in(self) -> None:
        """A file that comes into a trigger's code or leaves it is named, though the file itself stays the same."""
        old = bundle(module("h", "1"), module("g", "1"), module("rules", "1"))
        new = bundle(module("h", "1"), module("g", "1"), module("rules", "1"), included=frozenset(("rules",)))
        code = CodeComparison(old, new).changes
        self.assertEqual(
            [(each.path, each.change) for each in code(spec(handler="h:f"), spec(handler="g:f"))],
            [("/srv/g.py", "added"), ("/srv/h.py", "removed"), ("/srv/rules.py", "added")],
        )
        self.assertEqual([each.path for each in code(None, spec(handler="h:f"))], ["/srv/h.py", "/srv/rules.py"])

    @given(
        st.lists(st.tuples(st.integers(0, 2), st.frozensets(st.sampled_from("abcd"))), min_size=4, max_size=4),
        st.lists(st.tuples(st.integers(0, 2), st.frozensets(st.sampled_from("abcd"))), min_size=4, max_size=4),
    )
    def test_as_the_digest(self, old: list[Any], new: list[Any]) -> None:
        """A trigger's code differs exactly when its source digest does."""
        before, after = (
            bundle(*(module(name, str(source), *imports) for name, (source, imports) in zip("abcd", each, strict=True)))
            for each in (old, new)
        )
        found = CodeComparison(before, after).changes(spec(handler="a:f"), spec(handler="a:f"))
        self.assertEqual(bool(found), source_digest(before, "a") != source_digest(after, "a"))


class GenerationTests(SynchronousTestCase):
    """`generation_diff`."""

    def setUp(self) -> None:
        self.folder = Folder(Path(self.mktemp()))

    def test_everything(self) -> None:
        """Triggers as a reload would sort them, fields, code, settings, files with their diffs, the manifest's."""
        self.folder.write(
            other="from deep import x\n\ndef f(event): pass\n", deep="x = 1\n", third="def f(event): pass\n"
        )
        triggers = {each: trigger_text(each, handler="other:f") for each in ("code", "field", "gone", "same")}
        triggers["same"] = trigger_text("same")
        old = self.folder.record(3, *triggers.values())
        self.folder.write(deep="x = 2\n")
        triggers["field"] = trigger_text("field", handler="third:f", extra='timeout = "5s"')
        del triggers["gone"]
        triggers["came"] = trigger_text("came")
        new = self.folder.record(5, *triggers.values(), head="[orchestrator]\nmax_body_bytes = 5\n")
        found = diffed(old, new)
        self.assertEqual((found["from"], found["to"]), (3, 5))
        self.assertEqual(
            found["summary"], {"added": ["came"], "modified": ["code", "field"], "removed": ["gone"], "unchanged": 1}
        )
        path = self.folder.path
        self.assertEqual(
            found["changes"],
            {
                "code": {"fields": [], "code": [path("deep.py")]},
                "field": {
                    "fields": [
                        {"key": "handler", "old": "other:f", "new": "third:f"},
                        {"key": "timeout", "old": "30s", "new": "5s"},
                    ],
                    "code": [path("deep.py"), path("other.py"), path("third.py")],
                },
            },
        )
        settings = [("allow_empty", True, False), ("max_body_bytes", 10_485_760, 5)]
        self.assertEqual(
            found["settings"],
            [{"key": f"orchestrator.{key}", "old": a, "new": b, "applies": "reload"} for key, a, b in settings],
        )
        self.assertEqual(
            [(each["path"], each["change"]) for each in found["files"]],
            [(path("deep.py"), "modified"), (path("third.py"), "added")],
        )
        self.assertIn("-x = 1\n+x = 2\n", found["files"][0]["diff"])
        self.assertTrue(found["manifest"].startswith("--- generation 3/manifest\n+++ generation 5/manifest\n@@ "))
        self.assertNotIn("note", found)
        canonical_json(found)

    def test_same(self) -> None:
        """Between two generations of one content nothing differs."""
        old = self.folder.record(1, trigger_text("a"))
        found = diffed(old, evolve(old, number=9))
        self.assertEqual(
            found,
            {
                "from": 1,
                "to": 9,
                "summary": {"added": [], "modified": [], "removed": [], "unchanged": 1},
                "changes": {},
                "settings": [],
                "files": [],
                "manifest": "",
            },
        )

    def test_comment(self) -> None:
        """An edit that changes no trigger is in the manifest's diff alone."""
        old = self.folder.record(1, trigger_text("a"))
        found = diffed(old, self.folder.record(2, "# more\n" + trigger_text("a")))
        self.assertEqual((found["summary"]["unchanged"], found["changes"], found["files"]), (1, {}, []))
        self.assertIn("+# more\n", found["manifest"])

    def test_not_accepted_any_more(self) -> None:
        """When a manifest is of a plugin that is gone, the texts and files are compared, and a note says so."""
        old = evolve(self.folder.record(1, trigger_text("a")), manifest=None)
        self.folder.write(handlers="def on_event(event): pass\n")
        new = self.folder.record(2, trigger_text("b"))
        found = diffed(old, new)
        self.assertEqual(found["summary"], {"added": [], "modified": [], "removed": [], "unchanged": None})
        self.assertEqual(
            found["note"], "the manifest of generation 1 is not accepted any more: only texts and files are compared"
        )
        self.assertEqual([each["change"] for each in found["files"]], ["modified"])
        self.assertIn('+id = "b"\n', found["manifest"])
        both = diffed(old, evolve(new, manifest=None))
        self.assertIn("generations 1 and 2 ", both["note"])

    def test_no_text(self) -> None:
        """A manifest of bytes that are not UTF-8 does not stop it."""
        old = self.folder.record(1, trigger_text("a"))
        found = diffed(old, Recorded(number=2, text=b"\xff", bundle=old.bundle, manifest=None))
        self.assertEqual(found["manifest"], "Binary files generation 1/manifest and generation 2/manifest differ\n")

    def test_many(self) -> None:
        """Of thousands of triggers the changed ones are named, and the others counted."""
        texts = [manifest_text(2_000, changed=changed) for changed in ((), (7, 1_500))]
        old, new = (self.folder.record(number, text) for number, text in enumerate(texts, 1))
        found = diffed(old, new)
        self.assertEqual(found["summary"]["modified"], ["t1500", "t7"])
        self.assertEqual(found["summary"]["unchanged"], 1_998)
        self.assertEqual(found["changes"]["t7"]["fields"], [{"key": "retry.max", "old": 3, "new": 4}])
        self.assertEqual(found["manifest"].count("@@ -"), 2)
