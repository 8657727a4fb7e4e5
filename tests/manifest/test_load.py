"""Loading off the reactor thread: the parts that are checked again, and those that are kept."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import ManifestInvalid
from harn.manifest import load as loading
from harn.manifest.document import parse_part
from harn.manifest.interfaces import PluginRules
from harn.manifest.load import LoadedManifest, check_document, load_manifest
from harn.manifest.model import ReferenceSite, function_references, secret_references
from harn.manifest.source import ManifestSource
from harn.manifest.trigger import check_trigger
from harn.testing.manifests import manifest_text, trigger_text
from harn.wire import digest_bytes
from tests.manifest.rules import RULES, load, source


class ResultTests(SynchronousTestCase):
    """The loaded manifest."""

    def test_values(self) -> None:
        """Everything that is written arrives, defaults are filled in, and digests are those of file and spec."""
        text = (
            '[exports]\nhandlers = "./src/handlers.py"\n[[triggers]]\nid = "hook"\nkind = "webhook"\n'
            'provider = "webhook"\nmatch = { events = ["a.*"], path = "/in" }\nhandler = "handlers::on.x"\n'.replace(
                "on.x", "on_x"
            )
            + 'when = "check"\nfilter = "event.kind"\ndedupe_key = "event.id"\n'
            'timeout = "1m"\nsecrets = { signing_secret = ["webhook/new", "webhook/old@2"] }\n'
            '[triggers.retry]\nmax = 3\nbackoff = "exponential"\nbase = "2s"\ncap = "1h"\njitter = 0\n'
            'retention_days = 9\nversion = "pinned"\n[triggers.webhook]\nsignature_scheme = "stripe"\n'
        )
        manifest = load(text).manifest
        spec = manifest.triggers["hook"]
        self.assertEqual((manifest.path, manifest.package), ("/srv/demo/harn.toml", "demo"))
        self.assertEqual(manifest.exports, {"handlers": "src/handlers.py"})
        self.assertEqual(manifest.digest, digest_bytes(text.encode()))
        self.assertEqual(manifest.fingerprints, {"hook": spec.fingerprint()})
        self.assertEqual((spec.handler, spec.when, spec.path, spec.timeout), ("handlers:on_x", "lib:check", "/in", 60))
        self.assertEqual((spec.events, spec.filter, spec.dedupe_key), (("a.*",), "event.kind", "event.id"))
        self.assertEqual(spec.secrets, {"signing_secret": ("webhook/new", "webhook/old@2")})
        retry = spec.retry
        self.assertEqual((retry.max, retry.backoff, retry.base, retry.cap), (3, "exponential", 2.0, 3600.0))
        self.assertEqual((retry.jitter, retry.retention_days, retry.version), (0.0, 9, "pinned"))
        self.assertEqual(
            spec.settings,
            {"signature_scheme": "stripe", "timestamp_tolerance_secs": 300, "source": None, "tags": []},
        )

    def test_defaults(self) -> None:
        """A short trigger has the default path and settings; one of a provider without a table has none."""
        github = trigger_text("gh")
        hook = trigger_text("hook", provider="webhook")
        specs = load(github + hook).manifest.triggers
        self.assertEqual((specs["gh"].path, specs["gh"].timeout, specs["gh"].settings), ("/triggers/gh", 30.0, None))
        self.assertEqual((specs["hook"].settings or {})["signature_scheme"], "standard")

    def test_problem_found_later(self) -> None:
        """A secret that does not resolve, or a handler that is missing, gets its line and place."""
        text = manifest_text(3)
        for loaded in (load(text), load(text + '[exports]\nm = "m.py"\n')):
            line = text.split("\n").index('id = "t1"') + 1
            problem = loaded.problem("t1", "handler", "there is no module handlers", "write it")
            self.assertEqual(
                str(problem),
                f"harn.toml:{line + 4}: triggers[1] (t1): handler: there is no module handlers; write it",
            )
            self.assertEqual(loaded.problem("t1", "secrets.signing_secret[1]", "x").line, line + 5)
            self.assertEqual(loaded.problem("t1", "when", "x").line, line - 1)

    def test_uses(self) -> None:
        """Every reference is listed once, with every place that names it."""
        text = trigger_text("a", extra='when = "ask"') + trigger_text(
            "b", secret=None, extra=('secrets = { signing_secret = ["github/webhook-secret", "github/old"] }')
        )
        manifest = load(text).manifest
        self.assertEqual(
            secret_references(manifest),
            {
                "github/webhook-secret": (
                    ReferenceSite("a", "secrets.signing_secret"),
                    ReferenceSite("b", "secrets.signing_secret[0]"),
                ),
                "github/old": (ReferenceSite("b", "secrets.signing_secret[1]"),),
            },
        )
        functions = {str(function): uses for function, uses in function_references(manifest).items()}
        self.assertEqual(functions["handlers:on_event"], (ReferenceSite("a", "handler"), ReferenceSite("b", "handler")))
        self.assertEqual(functions["lib:ask"], (ReferenceSite("a", "when"),))


class ReuseTests(SynchronousTestCase):
    """What a load keeps of the previous one."""

    def kept(self, old: LoadedManifest, new: LoadedManifest) -> list[str]:
        """Return the ids of triggers whose spec is the very same."""
        before = old.manifest.triggers
        return [name for name, spec in new.manifest.triggers.items() if before.get(name) is spec]

    def test_one_changed(self) -> None:
        """Only the trigger whose text changed is parsed and checked again; the others are the same objects."""
        old = load(manifest_text(5))
        with patch.object(loading, "check_trigger", wraps=check_trigger) as check:
            new = load(manifest_text(5, changed=(3,)), old)
        self.assertEqual(check.call_count, 1)
        self.assertEqual(self.kept(old, new), ["t0", "t1", "t2", "t4"])
        self.assertEqual(new.manifest.triggers["t3"].retry.max, 4)

    def test_an_edit_that_changes_nothing(self) -> None:
        """A comment in a trigger, and another layout, keep the spec."""
        text = manifest_text(3)
        old = load(text)
        new = load(text.replace('id = "t1"', '# note\nid   =   "t1"'), old)
        self.assertEqual(self.kept(old, new), ["t0", "t1", "t2"])
        self.assertNotEqual(new.manifest.digest, old.manifest.digest)

    def test_parsed_whole(self) -> None:
        """Specs are kept where the text cannot be cut, too, and from one way of parsing to the other."""
        text = manifest_text(3)
        uncut = text + '[exports]\nm = "m.py"\n'
        old = load(uncut)
        self.assertEqual(self.kept(old, load(uncut + "# x\n", old)), ["t0", "t1", "t2"])
        self.assertEqual(self.kept(old, load(text, old)), ["t0", "t1", "t2"])

    def test_another_rollout(self) -> None:
        """How a change is applied is not part of the fingerprint; the spec carries the new value."""
        text = trigger_text("a", extra="rollout = { percent = 10 }") + trigger_text("b")
        old = load(text)
        new = load(text.replace("10", "20"), old)
        self.assertEqual(new.manifest.fingerprints, old.manifest.fingerprints)
        self.assertEqual(self.kept(old, new), ["b"])
        rollout = new.manifest.triggers["a"].rollout
        self.assertEqual(rollout and rollout.percent, 0.2)
        without = load(text.replace("rollout = { percent = 10 }", ""), new)
        self.assertEqual(without.manifest.fingerprints, old.manifest.fingerprints)
        self.assertIsNone(without.manifest.triggers["a"].rollout)
        same = load(text.replace("10", '"10 %"'), old)
        self.assertEqual(self.kept(old, same), ["a", "b"])

    def test_fingerprints_outlive_a_program(self) -> None:
        """A trigger has the fingerprint that earlier versions of harn gave it: an update does not change triggers."""
        text = trigger_text("a", provider="webhook", extra='timeout = "1m"\n[triggers.retry]\nmax = 3\n')
        spec = load(text).manifest.triggers["a"]
        settings = {"signature_scheme": "standard", "source": None, "timestamp_tolerance_secs": 300}
        self.assertEqual(
            msgspec.structs.replace(spec, settings=settings).fingerprint(),
            "sha256:f2e831ed88f9c581c78a4a8d47308ddc643849720b678e1aa2a8410e3be896ff",
        )

    def test_moved_added_removed(self) -> None:
        """The order of the file is that of the triggers, whatever was kept."""
        texts = [trigger_text(name) for name in "abcd"]
        old = load("".join(texts[:3]))
        new = load(texts[2] + texts[3] + texts[0], old)
        self.assertEqual(list(new.manifest.triggers), ["c", "d", "a"])
        self.assertEqual(list(new.manifest.fingerprints), ["c", "d", "a"])
        self.assertEqual(self.kept(old, new), ["c", "a"])
        self.assertEqual(new.problem("a", "id", "x").line, len((texts[2] + texts[3]).split("\n")) + 1)

    def test_same_bytes(self) -> None:
        """The same file under the same rules is the same manifest."""
        old = load(manifest_text(3))
        self.assertIs(load(manifest_text(3), old), old)

    def test_other_rules(self) -> None:
        """When a provider's rules change, nothing that was checked by the old ones is trusted."""
        old = load(manifest_text(1))
        error = self.assertRaises(ManifestInvalid, check_document, source(manifest_text(1)), old, PluginRules({}, {}))
        self.assertIn('"github" is not supported yet', str(error))

    def test_a_twin_of_a_kept_trigger(self) -> None:
        """A new trigger with the id of a kept one is found out."""
        old = load(trigger_text("a"))
        twins = trigger_text("a") + trigger_text("a", extra='path = "/b"')
        error = self.assertRaises(ManifestInvalid, load, twins, old)
        self.assertIn('"a" is also the id of triggers[0] (a) on line 2', str(error))

    def test_windows_line_ends(self) -> None:
        """Line ends of either kind give the same manifest, and the same specs."""
        old = load(manifest_text(2))
        new = load(manifest_text(2).replace("\n", "\r\n"), old)
        self.assertEqual(self.kept(old, new), ["t0", "t1"])

    def test_ten_thousand(self) -> None:
        """One change in ten thousand triggers costs one parse and one check, and keeps the rest."""
        old = load(manifest_text(10_000))
        with patch.object(loading, "parse_part", wraps=parse_part) as parse:
            new = load(manifest_text(10_000, changed=(7,)), old)
        self.assertEqual(parse.call_count, 1)
        self.assertEqual(len(self.kept(old, new)), 9_999)


class LoadManifestTests(TestCase):
    """`load_manifest`, with the reactor's threads and a real child process."""

    async def load(self, text: str, previous: LoadedManifest | None = None) -> LoadedManifest:
        """Load as the server does."""
        from twisted.internet import reactor

        return await load_manifest(source(text), previous, RULES, reactor)

    async def test_small_and_big(self) -> None:
        """A text over the threshold, parsed in a child, cut or not, gives what parsing it here gives."""
        for text in (
            manifest_text(2),
            manifest_text(2) + "[exports]\n",
            manifest_text(1500),
            manifest_text(1500) + "[exports]\n",
        ):
            self.assertEqual((await self.load(text)).manifest, load(text).manifest)

    async def test_errors_are_the_same(self) -> None:
        """So do its errors, of either stage."""
        for text in (
            manifest_text(1500) + "x = ",
            manifest_text(1500).replace('id = "t77"', 'id = 1979-05-27\nhandlr = "x"'),
            f"big = '{'x' * loading.THRESHOLD}'\ntriggers = 3\n",
        ):
            expected = self.assertRaises(ManifestInvalid, load, text)
            found: Any = await self.assertFailure(Deferred.fromCoroutine(self.load(text)), ManifestInvalid)
            self.assertEqual((found.stage, found.problems), (expected.stage, expected.problems))

    async def test_big_with_one_change_needs_no_child(self) -> None:
        """What is new is small: it is parsed here, in the thread pool."""
        old = await self.load(manifest_text(1500))
        with patch.object(loading, "parse_in_child") as child:
            new = await self.load(manifest_text(1500, changed=(9,)), old)
        child.assert_not_called()
        self.assertIs(new.manifest.triggers["t8"], old.manifest.triggers["t8"])

    async def test_never_on_the_reactor_thread(self) -> None:
        """Checking runs in another thread, whichever way the text was parsed."""
        threads: set[Any] = set()

        def note(*args: Any) -> Any:
            threads.add(threading.current_thread())
            return check_trigger(*args)

        with patch.object(loading, "check_trigger", note):
            await self.load(manifest_text(2))
            await self.load(manifest_text(1500))
        self.assertNotIn(threading.current_thread(), threads)
        self.assertTrue(threads)


class InlineThreads(MemoryReactorClock):
    """A reactor whose threads do their work at once, in the caller's."""

    def getThreadPool(self) -> InlineThreads:
        return self

    def callInThreadWithCallback(self, done: Any, work: Any, *args: Any) -> None:
        done(True, work(*args))

    def callFromThread(self, work: Any, *args: Any) -> None:
        work(*args)


class CancelTests(SynchronousTestCase):
    """Cutting a load off."""

    def test_cancelling_kills_the_child(self) -> None:
        """A cancelled load passes on to its child process, which is killed."""
        killed: list[str] = []

        class Transport:
            """A process that never answers."""

            def signalProcess(self, signal: str) -> None:
                killed.append(signal)

            def loseConnection(self) -> None:
                pass

        def spawn(protocol: Any, *args: object, **kwargs: object) -> None:
            protocol.transport = Transport()

        reactor = InlineThreads()
        reactor.spawnProcess = spawn  # type: ignore[attr-defined]  # of a mixin without it
        big = ManifestSource.of("/srv/demo/harn.toml", manifest_text(1500).encode())
        loaded = Deferred.fromCoroutine(load_manifest(big, None, RULES, reactor))
        self.assertNoResult(loaded)
        loaded.cancel()
        self.failureResultOf(loaded)
        self.assertEqual(killed, ["KILL"])
