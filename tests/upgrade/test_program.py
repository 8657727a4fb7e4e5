"""How a program is started again, and what the new program of an upgrade inherits."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.upgrade.program import VARIABLE, HandoverFailed, Inheritance, Program, program_environment

PYTHON = "/venv/bin/python3"


class ProgramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "bin").mkdir(parents=True)
        self.script = self.root / "bin" / "harn"

    def write(self, text: str) -> str:
        """Write the script."""
        self.script.write_text(text)
        self.script.chmod(stat.S_IRWXU)
        return str(self.script)

    def of(self, *original: str) -> Program:
        return Program.of(original, "/real/python", str(self.root))

    def test_module(self) -> None:
        """What was started with the interpreter's name and options is started so again, by the path of this one."""
        program = self.of("python", "-X", "dev", "-m", "harn", "orchestrator", "serve")
        arguments = ("/real/python", "-X", "dev", "-m", "harn", "orchestrator", "serve")
        self.assertEqual(program, Program("/real/python", arguments, str(self.root)))

    def test_script_that_runs_itself(self) -> None:
        """A script with the interpreter in its first lines is started by these: a new version may name another."""
        for text in (f"#!{PYTHON}\nimport harn\n", f"#!/bin/sh\n'''exec' \"{PYTHON}\" \"$0\" \"$@\"\n' '''\n"):
            script = self.write(text)
            program = self.of(PYTHON, script, "orchestrator", "serve")
            self.assertEqual(program, Program(script, (script, "orchestrator", "serve"), str(self.root)))
        relative = self.of(PYTHON, "bin/harn", "serve")
        self.assertEqual((relative.executable, relative.directory), ("bin/harn", str(self.root)))

    def test_script_for_another_interpreter(self) -> None:
        """A script that would run by itself with another interpreter is started with this one, as it was."""
        script = self.write("#!/usr/bin/env python3\n" + "#" * 5000 + PYTHON)
        self.assertEqual(self.of(PYTHON, script, "serve").arguments, ("/real/python", script, "serve"))
        self.write(f"#!{PYTHON}\n")
        self.script.chmod(stat.S_IRUSR | stat.S_IWUSR)
        self.assertEqual(self.of(PYTHON, script).executable, "/real/python")
        for other in ((PYTHON,), (PYTHON, str(self.root)), (PYTHON, "")):
            self.assertEqual(self.of(*other).executable, "/real/python")


class InheritanceTests(SynchronousTestCase):
    def descriptors(self) -> list[int]:
        """Open three, as a process inherits them."""
        found = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        for each in found:
            os.set_inheritable(each, True)
            self.addCleanup(os.close, each)
        return found

    def test_taken(self) -> None:
        """It is taken out of the environment at once; children of the new program inherit nothing of it."""
        listening, lock, channel = self.descriptors()
        given = Inheritance(pid=12, incarnation=3, listening=listening, lock=lock, channel=channel)
        environ = {VARIABLE: given.encode(), "OTHER": "x"}
        self.assertEqual(Inheritance.taken_from(environ), given)
        self.assertEqual(environ, {"OTHER": "x"})
        self.assertFalse(any(map(os.get_inheritable, (listening, lock, channel))))
        self.assertIsNone(Inheritance.taken_from(environ))

    def test_of_another_version(self) -> None:
        """What another version says beside it is left alone."""
        listening, lock, channel = self.descriptors()
        said = {"pid": 1, "incarnation": 2, "listening": listening, "lock": lock, "pair": channel, "mood": "good"}
        found = Inheritance.taken_from({VARIABLE: json.dumps(said)})
        assert found is not None
        self.assertEqual(found.incarnation, 2)

    def test_unusable(self) -> None:
        """What does not come from an old program is refused, with what to do; it is gone all the same."""
        closed = Inheritance(pid=1, incarnation=1, listening=9997, lock=9998, channel=9999).encode()
        huge = json.dumps({"pid": 1, "incarnation": 1, "listening": 2**40, "lock": 1, "pair": 1})
        for text in ("", "yes", "[]", "{}", '{"pid": "one", "incarnation": 2}', closed, huge):
            environ = {VARIABLE: text}
            raised = self.assertRaises(HandoverFailed, Inheritance.taken_from, environ)
            self.assertIn("take it out of the environment", str(raised))
            self.assertEqual(environ, {})

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Whatever stands there, it is an inheritance or refused in words."""
        try:
            Inheritance.taken_from({VARIABLE: text})
        except HandoverFailed as refused:
            self.assertIn(VARIABLE, str(refused))

    def test_environment(self) -> None:
        """A new program is started with our environment, without what is about our process id."""
        ours = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "WATCHDOG_PID": "1", VARIABLE: "old"}
        kept = {"WATCHDOG_USEC": "5", "NOTIFY_SOCKET": "/run/notify", "HARN_SECRET_X": "y"}
        inheritance = Inheritance(pid=1, incarnation=2)
        given = program_environment({**ours, **kept}, inheritance)
        self.assertEqual(given, {**kept, VARIABLE: inheritance.encode()})
