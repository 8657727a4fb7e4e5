"""What stands beside the triggers: ``[orchestrator]``, ``[exports]``, ``[package]``, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest.changes import LIVE_SETTINGS, RESTART_SETTINGS
from harn.manifest.settings import ORCHESTRATOR, OrchestratorSettings
from harn.manifest.tables import Shape
from harn.testing.manifests import trigger_text
from tests.manifest.rules import complaints, load

EMPTY = "[orchestrator]\nallow_empty = true\n"


def leaves(shape: Shape, prefix: str = "") -> set[str]:
    """Return every key of a table of settings, dotted."""
    keys = {prefix + key for key in shape.fields}
    for name, inner in shape.tables.items():
        keys |= leaves(inner, f"{prefix}{name}.")
    return keys


def struct_leaves(struct: Any, prefix: str = "") -> set[str]:
    """Return every field of nested structs, dotted."""
    keys: set[str] = set()
    for key, name in zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True):
        value = getattr(struct, name)
        keys |= struct_leaves(value, f"{prefix}{key}.") if isinstance(value, msgspec.Struct) else {prefix + key}
    return keys


class OrchestratorTests(SynchronousTestCase):
    """``[orchestrator]``."""

    def settings(self, text: str) -> OrchestratorSettings:
        """Return the settings that ``text`` comes to."""
        return load(EMPTY + text).manifest.orchestrator

    def check(self, text: str, *expected: str) -> None:
        """Assert that ``text`` after `EMPTY` has exactly these problems."""
        found = complaints(EMPTY + text)
        self.assertEqual([problem.partition(": ")[2] for problem in found], list(expected))

    def test_every_setting_has_a_shape(self) -> None:
        """The tables that are checked are those of the model, key for key."""
        self.assertEqual(leaves(ORCHESTRATOR), struct_leaves(OrchestratorSettings()))

    def test_every_setting_is_live_or_needs_a_restart(self) -> None:
        """Each setting of the model is in one list and in one only; what needs a restart is known by name."""
        self.assertEqual(LIVE_SETTINGS | RESTART_SETTINGS, struct_leaves(OrchestratorSettings()))
        self.assertEqual(LIVE_SETTINGS & RESTART_SETTINGS, frozenset())
        self.assertEqual(RESTART_SETTINGS, {"recover", "store"})

    def test_defaults(self) -> None:
        """Without the table, and without keys, the defaults of the model count."""
        self.assertEqual(load(trigger_text("a")).manifest.orchestrator, OrchestratorSettings())
        self.assertEqual(self.settings(""), OrchestratorSettings(allow_empty=True))

    def test_values(self) -> None:
        """Every key arrives, durations in seconds."""
        settings = self.settings(
            'allowed_origins = ["https://a.test", " "]\nmax_body_bytes = 5\nrecover = "manual"\nlog_level = "warn"\n'
            "[orchestrator.drain]\nmax_items = 2\ndeadline_seconds = 1.5\n[orchestrator.pumps]\nmax_outstanding = 3\n"
            '[orchestrator.retention]\nevents = "1d"\ndead = "2d"\nmax_bytes = 9\n'
            'generations = 2\n[orchestrator.reload]\ndrain_timeout = "1m"\ntimeout = "5s"\nconfirm_within = "60s"\n'
            'revert_on_failures = "20%"\nrevert_min = 5\nrevert_for = "30s"\n[orchestrator.vm]\ninclude = ["r/*.py"]\n'
            "[orchestrator.admission]\nmax_pending_events = 1\nmax_pending_bytes = 2\nglobal_rate = 3\nrate = 4.5\n"
            "burst = 6\nmax_unverified_bytes = 7\nmax_connections = 8\n"
        )
        self.assertEqual((settings.allowed_origins, settings.max_body_bytes), (("https://a.test",), 5))
        self.assertEqual((settings.recover, settings.drain.max_items), ("manual", 2))
        self.assertEqual((settings.drain.deadline_seconds, settings.pumps.max_outstanding), (1.5, 3))
        retention = settings.retention
        self.assertEqual((retention.events, retention.dead, retention.max_bytes), (86400.0, 172800.0, 9))
        self.assertEqual((settings.reload.drain_timeout, settings.reload.timeout), (60.0, 5.0))
        self.assertEqual((settings.log_level, retention.generations), ("warn", 2))
        self.assertEqual((settings.reload.confirm_within, settings.reload.revert_on_failures), (60.0, 0.2))
        self.assertEqual((settings.reload.revert_min, settings.reload.revert_for), (5, 30.0))
        self.assertEqual(settings.vm.include, ("r/*.py",))
        self.assertEqual(msgspec.structs.astuple(settings.admission), (1, 2, 7, 8, 3.0, 4.5, 6))

    def test_hyphens(self) -> None:
        """Keys may be written with hyphens; not both ways at once; problems say what was written."""
        text = 'max-body-bytes = 5\nallowed-origins = ["null"]\n[orchestrator.drain]\ndeadline-seconds = 7\n'
        settings = self.settings(text)
        self.assertEqual((settings.max_body_bytes, settings.drain.deadline_seconds), (5, 7.0))
        self.check(
            "max-body-bytes = 5\nmax_body_bytes = 5\n",
            'orchestrator.max-body-bytes: is "max_body_bytes" in another spelling, and both are given',
        )
        self.check("max-body-bytes = 0\n", "orchestrator.max-body-bytes: must be from 1 to 2147483648, got 0")

    def test_origins(self) -> None:
        """A star admits any; a list of blanks is a mistake that must not; an origin has no path."""
        self.assertEqual(self.settings('allowed_origins = ["https://a", "*"]\n').allowed_origins, ())
        self.check(
            'allowed_origins = [" "]\n',
            "orchestrator.allowed_origins: names no origin; remove the key to admit any",
        )
        self.check(
            'allowed_origins = ["https://a/"]\n',
            'orchestrator.allowed_origins[0]: must be an origin, got "https://a/"; '
            "write scheme://host[:port] in lower case without a path, or *",
        )

    def test_mistakes(self) -> None:
        """Types, ranges, unknown keys and tables, at every level."""
        self.check("max_body = 1\n", 'orchestrator.max_body: unknown key; did you mean "max_body_bytes"?')
        self.check("budget = {}\n", "orchestrator.budget: is not supported yet; remove it")
        self.check("drain = 1\n", "orchestrator.drain: must be a table, got an integer")
        self.check(
            "[orchestrator.drain]\ndeadline_seconds = '5s'\n",
            "orchestrator.drain.deadline_seconds: must be a number, got a string; write digits alone, without quotes",
        )
        self.check(
            "[orchestrator.pumps]\nmax_outstanding = 0\n",
            "orchestrator.pumps.max_outstanding: must be from 1 to 100000, got 0",
        )
        self.check(
            "[orchestrator.retention]\nevents = 7\n",
            'orchestrator.retention.events: must be a string with a unit, got an integer; write it as "7s"',
        )
        self.check(
            "[orchestrator.admission]\nburst = 1\n",
            "orchestrator.admission.burst: counts only with rate or global_rate; set one of them, or remove burst",
        )
        self.check("[orchestrator.admission]\nrate = 0\nburst = 1\n", "orchestrator.admission.rate: must be over 0")
        self.check(
            'log_level = "warning"\n',
            'orchestrator.log_level: "warning" is not known; '
            'did you mean "warn"? known: "debug", "info", "warn", "error", "critical"',
        )
        self.check(
            "[orchestrator.retention]\ngenerations = 1\n",
            "orchestrator.retention.generations: must be from 2 to 1000, got 1",
        )
        for include in ("/x.py", "../x.py", "a/../../x.py", "x", "~/x.py", "a\\\\b.py"):
            self.assertEqual(len(complaints(EMPTY + f'[orchestrator.vm]\ninclude = ["{include}"]\n')), 1, include)
        self.assertEqual(
            complaints("orchestrator = 1\n" + trigger_text("a")),
            ["harn.toml:1: orchestrator: must be a table, got an integer"],
        )

    def test_store(self) -> None:
        """A password stands nowhere in the address of a store; a secret may be named."""
        for address in ("postgresql://harn:x@db/harn", "postgresql://harn@db/harn?password=x", "mysql://db/harn"):
            self.assertEqual(len(complaints(EMPTY + f'store = "{address}"\n')), 1, address)
        self.assertEqual(complaints(EMPTY + 'store = "postgresql://harn@db/harn?password_secret=a/b"\n'), [])

    def test_reverts(self) -> None:
        """Both guards are off by default; what is about failures counts only where they are watched for."""
        reload = self.settings("").reload
        self.assertEqual((reload.confirm_within, reload.revert_on_failures), (None, None))
        self.assertEqual((reload.revert_min, reload.revert_for), (20, 120.0))
        table = "[orchestrator.reload]\n"
        alone = "counts only with revert_on_failures; set that, or remove"
        self.check(
            table + 'revert_min = 5\nrevert-for = "1m"\n',
            f"orchestrator.reload.revert_min: {alone} revert_min",
            f"orchestrator.reload.revert-for: {alone} revert-for",
        )
        settings = self.settings(table + 'revert-on-failures = 0\nrevert_min = 1\nrevert-for = "1m"\n').reload
        self.assertEqual((settings.revert_on_failures, settings.revert_min, settings.revert_for), (0.0, 1, 60.0))
        # A wrong share is the only problem that is reported.
        self.check(
            table + 'revert_on_failures = "many"\nrevert_min = 5\n',
            'orchestrator.reload.revert_on_failures: must be a share, got "many"; '
            'write a percentage from 0 to 100, for example "10%"',
        )
        self.check(
            table + "confirm_within = '0s'\n",
            'orchestrator.reload.confirm_within: must be longer than 0; write for example "30s"',
        )
        self.check("reload = 3\n", "orchestrator.reload: must be a table, got an integer")

    def test_no_triggers(self) -> None:
        """A manifest without triggers must say that it means it."""
        self.assertEqual(load(EMPTY).manifest.triggers, {})
        hint = "add one, or set allow_empty = true in [orchestrator]"
        self.assertEqual(complaints("# nothing\n"), [f"harn.toml: triggers: there is no [[triggers]] at all; {hint}"])
        self.assertEqual(len(complaints("[orchestrator]\nallow_empty = false\n")), 1)


class TopLevelTests(SynchronousTestCase):
    """The other tables."""

    def test_unknown_and_later(self) -> None:
        """Unknown tables and keys suggest the nearest; known ones that are not built say so."""
        text = (
            "name = 1\n[orchestartor]\n[[trigers]]\n[[providers]]\nid = 1\n[[personas]]\n[connector_contract]\n"
            + trigger_text("a")
        )
        known = "known: defaults, exports, include, orchestrator, package, triggers"
        self.assertEqual(
            complaints(text),
            [
                f"harn.toml:1: name: unknown key; {known}",
                'harn.toml:2: orchestartor: unknown table; did you mean "orchestrator"?',
                'harn.toml:3: trigers: unknown table; did you mean "triggers"?',
                "harn.toml:4: providers: is not supported yet; remove it",
                "harn.toml:6: personas: is not supported yet; remove it",
                "harn.toml:7: connector_contract: is not supported yet; remove it",
            ],
        )

    def test_package(self) -> None:
        """The package has the name that is given, or that of the directory."""
        self.assertEqual(load(EMPTY).manifest.package, "demo")
        self.assertEqual(load(EMPTY + "[package]\nname = 'x'\n").manifest.package, "x")
        self.assertEqual(len(complaints(EMPTY + "[package]\nname = 1\nversion = 2\n")), 2)
        self.assertEqual(len(complaints("package = 1\n" + EMPTY)), 1)

    def test_exports(self) -> None:
        """A module lies in the manifest's directory and has a name that can be imported."""
        text = '[exports]\nhandlers = "src/../src/h.py"\n"a.b" = "./pkg"\nc = "pkg/c/"\n'
        self.assertEqual(load(EMPTY + text).manifest.exports, {"handlers": "src/h.py", "a.b": "pkg", "c": "pkg/c"})
        for path in (
            "/x.py",
            "../x.py",
            "a/../../x.py",
            "..",
            ".",
            "~/x.py",
            "a\\\\x.py",
            "x.txt",
            "x.pyc",
            "a\\nb",
            "",
        ):
            self.assertEqual(len(complaints(EMPTY + f'[exports]\nm = "{path}"\n')), 1, path)
        for name in ("a-b", "class", "'1'", "'a..b'", "''"):
            self.assertEqual(len(complaints(EMPTY + f"[exports]\n{name} = 'm.py'\n")), 1, name)
        self.assertEqual(len(complaints(EMPTY + "[exports]\nm = 1\n")), 1)
        self.assertEqual(len(complaints("exports = 1\n" + EMPTY)), 1)

    def test_no_toml(self) -> None:
        """What is not TOML is said with line and column, keys as a person writes them."""
        hint = "fix the syntax there, or just before it"
        for text, expected in (
            ("x = 1\ny =\n", f"harn.toml:2: column 4: is not TOML: Invalid value; {hint}"),
            ("x = 1\nx = 2\n", "harn.toml:2: column 6: is not TOML: a key is given twice; keep one of them"),
            ("[a.b]\n[a.b]\n", f"harn.toml:2: column 5: is not TOML: Cannot declare a.b twice; {hint}"),
            ("x = " + "[" * 2000, f"harn.toml: is not TOML: arrays or tables are nested too deep; {hint}"),
        ):
            self.assertEqual(complaints(text), [expected])
