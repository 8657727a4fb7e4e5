"""
What no test may do to the process that runs it, held against the source of every test.

A test run must pass wherever it is started: with other threads alive, without a terminal, under ``nohup``, on a slow
machine. A signal to the runner is delivered to whichever thread the kernel picks; the working directory, the umask and
the signal mask belong to all tests; a pause is too short on one machine and wasted on another.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent

SIGNALS_ITSELF = frozenset(("raise_signal", "pthread_kill", "alarm", "setitimer", "killpg", "abort", "tgkill"))
"""Functions that send a signal to the process that calls them, or may."""
CHANGES_ALL = frozenset(("chdir", "fchdir", "umask", "pthread_sigmask", "setrlimit", "nice", "setpgrp", "setsid"))
"""Functions that change what all tests share."""
OWN_PROCESS = frozenset(("getpid", "getpgrp", "getpgid"))
LONGEST_PAUSE = 0.05
"""Seconds between two looks at something that a test waits for."""
STILL_PRIVATE = frozenset(
    (
        *("connectors/providers/test_stripe.py", "listener/test_connection_limit.py", "listener/test_endpoint.py"),
        *("listener/test_tls.py", "listener/test_unverified.py", "orchestrator/test_service.py"),
        *("reload/invariants.py", "reload/machine.py", "reload/test_probation.py", "reload/watched.py"),
        *("store/test_files.py", "store/test_group_commit.py", "store/test_lock.py", "store/test_mark.py"),
        *("store/test_plans.py", "store/test_running.py", "store/test_trouble.py", "store/test_two_writers.py"),
        *("test_clocks.py", "upgrade/test_channel.py", "vm/test_forks.py", "vm/test_inline.py", "vm/test_process.py"),
    )
)
"""Files whose tests read private attributes of other objects; no further one may: then refactoring breaks no test."""


def name_of(node: ast.AST) -> str:
    """Return the last part of a name: ``kill`` of ``os.kill``; empty for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_of_the_system(node: ast.expr) -> bool:
    """Return whether a name is one of the modules that ask the kernel: ``os.abort``, not ``parts.trials.abort``."""
    return isinstance(node, ast.Attribute) and name_of(node.value) in ("os", "signal", "resource")


def names_own_process(node: ast.expr, own: frozenset[str]) -> bool:
    """Return whether an argument is this process's id or group, or a number, which cannot be a child's."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    if isinstance(node, ast.Call):
        return name_of(node.func) in OWN_PROCESS
    return (isinstance(node, ast.Constant) and type(node.value) is int) or name_of(node) in own


def only_looks(call: ast.Call) -> bool:
    """Return whether a call of ``pthread_sigmask`` blocks nothing more: it asks what is blocked."""
    given = call.args[1] if len(call.args) == 2 else None
    return name_of(call.func) == "pthread_sigmask" and isinstance(given, ast.Tuple) and not given.elts


def pause_of(call: ast.Call) -> ast.expr | None:
    """Return how long a call pauses the test, None for a call that does not."""
    called = name_of(call.func)
    if called == "sleep" and call.args:
        return call.args[0]
    if called == "deferLater" and len(call.args) == 2:
        return call.args[1]
    return None


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each call that a test may not make. What is quoted for a child to run is not looked at."""
    own = frozenset(
        name_of(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if name_of(node.value.func) in OWN_PROCESS
        for target in node.targets
    )
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or only_looks(node):
            continue
        # Also what is handed to another function to be called: `callLater(0, os.kill, os.getpid(), SIGHUP)`.
        for called in (node.func, *node.args):
            if is_of_the_system(called) and name_of(called) in SIGNALS_ITSELF | CHANGES_ALL:
                yield node.lineno, name_of(called)
            elif name_of(called) == "kill" and len(node.args) > 1:
                after = node.args[node.args.index(called) + 1 :] if called in node.args else node.args
                if after and names_own_process(after[0], own):
                    yield node.lineno, "kill"
        pause = pause_of(node)
        if pause is not None and not (
            isinstance(pause, ast.Constant) and isinstance(pause.value, int | float) and pause.value <= LONGEST_PAUSE
        ):
            yield node.lineno, name_of(node.func)


def is_private(name: str) -> bool:
    """Return whether a name is private to the object that has it."""
    return name.startswith("_") and not name.startswith("__")


def is_own(owner: ast.expr) -> bool:
    """Return whether a test may look into an object: itself, its base class, or a module that has names like these."""
    if isinstance(owner, ast.Call):
        return name_of(owner.func) == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls", "os", "sys")


def pokes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each private attribute of another object that a test reads, sets or patches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in ("patch", "getattr", "setattr") and len(node.args) > 1:
            owner, named = node.args[0], node.args[1]
            if isinstance(named, ast.Constant) and is_private(str(named.value)) and not is_own(owner):
                yield node.lineno, str(named.value)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            yield node.lineno, node.attr


class IsolationTests(SynchronousTestCase):
    """The rule, and that it finds violations."""

    def test_every_test_leaves_the_runner_alone(self) -> None:
        """No test signals its own process, changes what all tests share, or pauses for a guessed time."""
        words = ("kill", "sleep", "deferLater", *SIGNALS_ITSELF, *CHANGES_ALL)
        named = re.compile(rf"\b(?:{'|'.join(words)})\b")
        sources = {path: path.read_text("utf-8") for path in sorted(ROOT.rglob("*.py"))}
        wrong = [
            f"{path.relative_to(ROOT.parent)}:{line}: {name}"
            for path, source in sources.items()
            if named.search(source)
            for line, name in faults(ast.parse(source))
        ]
        self.assertEqual(wrong, [], "run it in a child process, call what was installed, or wait for what is to come")

    def test_the_rule_finds(self) -> None:
        """Each of these is found; a signal to a child, a short look and a child's own program are not."""
        for source in (
            "os.kill(os.getpid(), 1)",
            "kill(getpid(), 1)",
            "me = os.getpid()\nos.kill(me, 1)",
            "os.kill(0, 15)",
            "os.kill(-1, 15)",
            "reactor.callLater(0, os.kill, os.getpid(), 1)",
            "self.addCleanup(os.chdir, here)",
            "signal.raise_signal(1)",
            "signal.alarm(1)",
            "signal.setitimer(signal.ITIMER_REAL, 1)",
            "signal.pthread_kill(threading.get_ident(), 1)",
            "os.killpg(os.getpgrp(), 1)",
            "signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)",
            "os.umask(0o22)",
            "time.sleep(1)",
            "deferLater(reactor, 0.3)",
            "deferLater(reactor, DELAY * 2)",
        ):
            self.assertEqual(len(list(faults(ast.parse(source)))), 1, source)
        for source in (
            "os.kill(pid, 1)",
            "os.kill(self.interpreters.spare.pid, 9)",
            "process.kill()",
            "server.signal(signal.SIGHUP)",
            "deferLater(reactor, 0.01)",
            "deferLater(reactor, 0)",
            "signal.pthread_sigmask(signal.SIG_BLOCK, ())",
            "RUN = 'import os; os.kill(os.getpid(), 1)'",
        ):
            self.assertEqual(list(faults(ast.parse(source))), [], source)


class PrivateTests(SynchronousTestCase):
    """Tests hold what a module promises, not how it keeps it."""

    def test_no_test_looks_into_another_object(self) -> None:
        """Outside of the files that still do, no test reads or sets a private attribute of anything but itself."""
        wrong = [
            f"{path.relative_to(ROOT.parent)}:{line}: {name}"
            for path in sorted(ROOT.rglob("*.py"))
            if str(path.relative_to(ROOT)) not in STILL_PRIVATE
            and re.search(r"\w\)?\]?\._[a-z]|[\"']_[a-z]", path.read_text("utf-8"))
            for line, name in pokes(ast.parse(path.read_text("utf-8")))
        ]
        self.assertEqual(wrong, [], "look at what it does; or make public what others may depend on")

    def test_the_list_only_shrinks(self) -> None:
        """Each file of the list still needs its place there."""
        done = [each for each in sorted(STILL_PRIVATE) if not any(pokes(ast.parse((ROOT / each).read_text("utf-8"))))]
        self.assertEqual(done, [], "remove these from the list")

    def test_the_rule_finds(self) -> None:
        """A field of another object is found, however it is reached; one's own and a base class's method are not."""
        for source in (
            "world.store._rows",
            "self.world._hooks = 1",
            "made()._thread",
            "module._helper()",
            "self.patch(module, '_LIMIT', 2)",
            "getattr(world, '_hooks')",
        ):
            self.assertEqual(len(list(pokes(ast.parse(source)))), 1, source)
        for source in (
            "self._made",
            "super()._stop()",
            "os._exit(1)",
            "x.__class__",
            "module.public",
            "self.patch(os, '_exit', ends)",
            "self.patch(module, 'LIMIT', 2)",
        ):
            self.assertEqual(list(pokes(ast.parse(source))), [], source)
