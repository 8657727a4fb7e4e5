"""The options of ``serve``: which source wins, which values are refused, and that the command and twistd agree."""

from __future__ import annotations

import os

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.serve import serve
from harn.options import OPTIONS, ServeOptions
from harn.options.readers import read_address
from harn.tap import Options


def told(*, environ: dict[str, str] | None = None, **given: str | bool | None) -> ServeOptions:
    """Put options together in the directory ``/at``."""
    return ServeOptions.from_values(given, environ or {}, "/at")


class ServeOptionsTests(SynchronousTestCase):
    """Flags, environment and defaults."""

    def test_defaults(self) -> None:
        """Without any option: paths are made absolute, and the settings of the manifest are left to it."""
        self.assertEqual(
            told(),
            ServeOptions(
                manifest="/at/harn.toml",
                manifest_name="harn.toml",
                state_dir="/at/.harn/orchestrator",
                host="127.0.0.1",
                port=8080,
                shutdown_timeout=30.0,
                drain_max_items=None,
                drain_deadline=None,
                pump_max_outstanding=None,
                watch=False,
                log_format="text",
                log_level=None,
                vm="child",
                last_good=False,
            ),
        )

    def test_flag_wins_over_environment_over_default(self) -> None:
        """Each later source counts only where the earlier ones have no value; an empty variable has none."""
        environ = {"HARN_ORCHESTRATOR_LISTEN": "[::1]:1", "HARN_ORCHESTRATOR_STATE_DIR": ""}
        options = told(environ=environ)
        self.assertEqual((options.host, options.port, options.state_dir), ("::1", 1, "/at/.harn/orchestrator"))
        self.assertEqual(told(environ=environ, bind="0.0.0.0:2").port, 2)

    def test_every_variable_is_heard(self) -> None:
        """Each option can be set by its variable."""
        environ = {
            "HARN_ORCHESTRATOR_MANIFEST": "other.toml",
            "HARN_ORCHESTRATOR_CERT": "c.pem",
            "HARN_ORCHESTRATOR_KEY": "/k.pem",
            "HARN_ORCHESTRATOR_SHUTDOWN_TIMEOUT": "0",
            "HARN_ORCHESTRATOR_DRAIN_MAX_ITEMS": "10",
            "HARN_ORCHESTRATOR_DRAIN_DEADLINE": "1.5",
            "HARN_ORCHESTRATOR_PUMP_MAX_OUTSTANDING": "0",
            "HARN_ORCHESTRATOR_WATCH": "yes",
            "HARN_ORCHESTRATOR_LOG_FORMAT": "json",
            "HARN_ORCHESTRATOR_LOG_LEVEL": "warn",
            "HARN_ORCHESTRATOR_VM": "inline",
            "HARN_ORCHESTRATOR_ROLE": "single-tenant",
            "HARN_ORCHESTRATOR_LAST_GOOD": "1",
        }
        options = told(environ=environ)
        self.assertEqual((options.manifest, options.manifest_name), ("/at/other.toml", "other.toml"))
        self.assertEqual((options.cert, options.key), ("/at/c.pem", "/k.pem"))
        self.assertEqual((options.shutdown_timeout, options.pump_max_outstanding), (1.0, 1))
        self.assertEqual((options.drain_max_items, options.drain_deadline), (10, 1.5))
        self.assertEqual((options.watch, options.log_format, options.log_level), (True, "json", "warn"))
        self.assertEqual((options.vm, options.last_good), ("inline", True))
        self.assertLessEqual(set(environ), {option.env for option in OPTIONS})

    def test_bad_values_name_who_said_them(self) -> None:
        """The message names the flag, or the variable if it was that, and what is wanted."""
        for given_, said in (
            ({"bind": "8080"}, "--bind: must be an address, got '8080'; write HOST:PORT"),
            ({"bind": "a:70000"}, "must have a port from 0 to 65535"),
            ({"config": ""}, "--config: the value is empty"),
            ({"drain_max_items": "-1"}, "--drain-max-items: must be an integer >= 0, got '-1'"),
            ({"shutdown_timeout": "soon"}, "--shutdown-timeout: must be a number of seconds >= 0, got 'soon'"),
            ({"shutdown_timeout": "nan"}, "--shutdown-timeout: must be a number of seconds >= 0, got 'nan'"),
            ({"vm": "thread"}, "--vm: must be one of child, inline, got 'thread'"),
            ({"role": "multi-tenant"}, "--role: multi-tenant is not supported yet"),
            ({"cert": "c.pem"}, "--cert requires --key"),
            ({"key": "k.pem"}, "--key requires --cert"),
        ):
            error = self.assertRaises(ValueError, told, **given_)
            self.assertIn(said, str(error))
        error = self.assertRaises(ValueError, told, environ={"HARN_ORCHESTRATOR_WATCH": "perhaps"})
        self.assertIn("HARN_ORCHESTRATOR_WATCH: 'perhaps' is neither true nor false", str(error))

    @given(st.text(max_size=30))
    def test_address_is_read_or_refused(self, text: str) -> None:
        """Any text is an address with a host and a port in range, or a ValueError."""
        try:
            host, port = read_address(text)
        except ValueError:
            return
        self.assertTrue(host)
        self.assertTrue(0 <= port <= 65535)


class AgreementTests(SynchronousTestCase):
    """The command line and twistd have one definition."""

    def test_twistd_reads_the_same(self) -> None:
        """Given the same words, twistd's options come to the same value."""
        self.patch(os, "environ", {})
        words = ["--manifest", "m.toml", "--listen", "h:1", "--watch", "--drain-max-items", "0", "--vm", "inline"]
        options = Options()
        options.parseOptions(words)
        given_: dict[str, str | bool | None] = {
            "config": "m.toml",
            "bind": "h:1",
            "watch": True,
            "drain_max_items": "0",
            "vm": "inline",
        }
        self.assertEqual(options.serve, ServeOptions.from_values(given_, {}))

    def test_twistd_says_what_is_wrong(self) -> None:
        """A bad value is a usage error of twistd's."""
        error = self.assertRaises(usage.UsageError, Options().parseOptions, ["--bind", "x"])
        self.assertIn("--bind", str(error))

    def test_workers(self) -> None:
        """A number from 1 to 64; twistd, which runs one server, refuses more."""
        self.assertEqual((told().workers, told(workers="64").workers), (1, 64))
        for text in ("0", "65", "-1", "two", "1.5", "", "\u0662"):
            self.assertRaises(ValueError, told, workers=text)
        self.patch(os, "environ", {})
        Options().parseOptions(["--workers", "1"])
        error = self.assertRaises(usage.UsageError, Options().parseOptions, ["--workers", "2"])
        self.assertIn("use `harn serve`", str(error))

    def test_both_know_the_same_flags(self) -> None:
        """The two have exactly the same flags; the command line has short forms of some, too."""
        ours = {name for parameter in serve.params for name in parameter.opts if name.startswith("--")}
        twistd = {f"--{name.rstrip('=')}" for name in Options().longOpt} - {"--help", "--version"}
        self.assertEqual(ours, twistd)

    def test_command_refuses_with_2(self) -> None:
        """A bad value is a usage error of the command's: exit 2."""
        result = CliRunner().invoke(serve, ["--bind", "x"], prog_name="serve")
        self.assertEqual((result.exit_code, "HOST:PORT" in result.output), (2, True))
