"""
Steps of a delivery: how many functions of harn it calls, and how many instructions of the interpreter these run.

Counts are the same on every machine, whatever else runs there. A server in this process serves one trigger, without
sockets and threads: 32 connections send a signed delivery of 4 KB each, then the store writes what came, then each is
answered, as in one turn of a busy server. What Twisted and the libraries do is not counted.

With ``--server`` a whole server is counted instead, under load: all that its reactor's thread runs, Twisted included.
How much comes in one turn depends on the machine then, and a few hundredths of the counts with it.
"""

# Twisted's factories are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

import harn
from benchmarks.cores import cpu_seconds
from benchmarks.counted import LAUNCHER, Counts, Function, counted, switch
from benchmarks.figures import Goals, Table
from benchmarks.load import Running
from benchmarks.subjects import BLOCKING, HEAD, ONE_AT_A_TIME, QUICK, harn_server
from benchmarks.traffic import request_parts
from harn.auth.authenticator import LiveCredentials
from harn.auth.credentials import Credentials
from harn.connectors.gate import Gate
from harn.connectors.interfaces import PUBLIC, ConnectorBinding, ConnectorContext
from harn.connectors.providers.github import GITHUB
from harn.destinations.targets import LocalFunctions
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.feature import install as install_dispatch
from harn.dispatch.intake import Intake
from harn.dispatch.parts import DispatchLimits
from harn.listener.admission import Admission
from harn.listener.ingest import Ingest
from harn.listener.site import HarnSite, Places
from harn.manifest.model import TriggerSpec
from harn.model.exchange import Returned
from harn.observability.subscribers import log_deliveries
from harn.testing.clients import Wire, parse_answers
from harn.testing.clocks import START
from harn.testing.kit import KitServer, ScriptedInterpreter
from harn.testing.server import GITHUB_SECRET
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import KeyedPool
from harn.triggers.registry import Registry
from harn.triggers.routing import Route

CONNECTIONS = 32
PATH = "/hooks/t0"
SHOWN = 0.5
"""Instructions for each delivery below which a function is not shown."""

WARM_UP, COUNTED_FOR = 3.0, 5.0
"""Seconds of its processor time that a server is under load before it counts, and while it does."""

LONGEST = 600.0
"""Seconds after which the load ends in any case."""

_HOME = str(Path(harn.__file__).parent)
_OURS = (_HOME, "<attrs generated methods harn.")
_NOT_OURS = str(Path(_HOME, "testing"))


class Pool(KeyedPool[Any]):
    """The interpreter, or the receivers, of the triggers."""

    async def close(self, value: Any) -> None:
        """See `KeyedPool.close`."""
        await maybeDeferred(value.close)


class OwnCounts(Counts):
    """Counts functions of harn alone, without its kit for tests."""

    def includes(self, file: str) -> bool:
        """See `Counts.includes`."""
        return file.startswith(_OURS) and not file.startswith(_NOT_OURS)


class Subject:
    """
    A server with one trigger of GitHub.

    :param places: handlers that run at once; with one, deliveries are accepted and wait.
    """

    def __init__(self, places: int, dedupe_key: str | None) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.server = server = KitServer(self.clock)
        install_dispatch(server, DispatchLimits(max_outstanding=places))
        log_deliveries(server.lifecycle)
        self.interpreter = ScriptedInterpreter()
        credentials = LiveCredentials(None)
        credentials.replace(Credentials())
        admission = Admission(self.clock, dispatcher=server[Dispatcher])
        ingest = Ingest(self.clock, server[Intake], admission, server.lifecycle, server.threads, credentials)
        self.site = HarnSite(self.clock, server.metrics, Places(public=ingest, credentials=ingest), wall=server.wall)
        self.site.doStart()
        self.site.swap(self.site.build({PATH: self._route(dedupe_key)}), 1)
        self.wires = [Wire(self.site) for _ in range(CONNECTIONS)]
        self._before, self._after = request_parts(PATH, "127.0.0.1:8080")
        self._sent = 0

    def _route(self, dedupe_key: str | None) -> Route:
        """Make the trigger, and put it in force."""
        server = self.server
        events = ("issues.opened", "issues.closed")
        spec = TriggerSpec(
            id="t0", kind="webhook", provider="github", path=PATH, handler="m:f", events=events, dedupe_key=dedupe_key
        )
        binding = BindingVersion(Definition.of(spec, "spec", "handler", None), 1, "sha256:bundle")
        interpreters = Pool()
        binding.destination = LocalFunctions(interpreters.add("bundle", self.interpreter)).retain()
        server[Registry].adopt({spec.id: binding}, [], self.clock.seconds())
        seen = ConnectorBinding(
            trigger_id=spec.id,
            provider=spec.provider,
            kind=spec.kind,
            path=PATH,
            events=events,
            settings=None,
            secrets={"signing_secret": (GITHUB_SECRET,)},
        )
        connector = GITHUB.connector(ConnectorContext(clock=self.clock, binding=seen, gate=Gate(), wall=server.wall))
        connector.prepare()
        receivers = Pool()
        return Route(path=PATH, binding=binding, receiver=receivers.add("t0", connector), authentication=PUBLIC)

    def send(self) -> None:
        """Send a request on each connection."""
        for wire in self.wires:
            self._sent += 1
            wire.send(b"%b%d%b" % (self._before, self._sent, self._after))

    def check_answers(self) -> None:
        """Check that each connection has been answered 200."""
        for wire in self.wires:
            (answer,) = parse_answers(wire.raw())
            assert answer.status == 200, answer

    def end_calls(self) -> None:
        """End the handlers that run, as an interpreter does that has finished them meanwhile."""
        calls = list(self.interpreter.calls)
        self.interpreter.calls.clear()
        calls[0].endings.ended([(each.attempt, Returned(b"null")) for each in calls])


def turn(subject: Subject, phases: Mapping[str, Counts], *, settles: bool) -> None:
    """Send one delivery on each connection, and follow all of them to their answers, or until they are settled."""
    writer = subject.server.store.writer
    writer.held = True
    with phases["request read, until it is handed to the store"].counting():
        subject.send()
    with phases["written"].counting():
        writer.run()
    with phases["on disk, until it is answered"].counting():
        writer.deliver()
    subject.check_answers()
    if settles:
        with phases["handled, until it is settled"].counting():
            subject.end_calls()
            writer.run()
            writer.deliver()


def count(places: int, turns: int, dedupe_key: str | None = None, *, settles: bool = False) -> dict[str, Counts]:
    """Count so many turns, after two that fill what is kept."""
    subject = Subject(places, dedupe_key)
    names = ["request read, until it is handed to the store", "written", "on disk, until it is answered"]
    if settles:
        names.append("handled, until it is settled")
    for _ in range(2):
        turn(subject, {name: OwnCounts() for name in names}, settles=settles)
    phases: dict[str, Counts] = {name: OwnCounts() for name in names}
    for _ in range(turns):
        turn(subject, phases, settles=settles)
    return phases


def show(case: str, phases: Mapping[str, Counts], deliveries: int, functions: bool) -> float:
    """Print the counts for each delivery; return its instructions."""
    table = Table(case, ("from, to", "functions called", "instructions"))
    calls, instructions = Counter[CodeType](), Counter[CodeType]()
    for name, found in phases.items():
        calls += found.calls
        instructions += found.instructions
        table.add(name, f"{found.calls.total() / deliveries:,.1f}", f"{found.instructions.total() / deliveries:,.0f}")
    table.add("all", f"{calls.total() / deliveries:,.1f}", f"{instructions.total() / deliveries:,.0f}")
    table.show()
    if functions:
        each = Table(f"{case}: functions", ("instructions", "calls", "function"))
        for code, found_here in instructions.most_common():
            if found_here / deliveries >= SHOWN:
                where = code.co_filename.removeprefix(_HOME)
                name = f"{where}:{code.co_firstlineno} {code.co_qualname}"
                each.add(f"{found_here / deliveries:,.1f}", f"{calls[code] / deliveries:,.2f}", name)
        each.show()
    return instructions.total() / deliveries


def wait_for_work(pid: int, seconds: float) -> None:
    """Wait until a process and its children have used so many seconds of processor time more."""
    until = cpu_seconds(pid) + seconds
    while cpu_seconds(pid) < until:
        time.sleep(0.1)


def show_server(case: str, handlers: str, head: str, functions: bool) -> None:
    """Load a whole server, and print for each accepted delivery the counts of its reactor's thread."""
    with harn_server(handlers=handlers, head=head, launcher=LAUNCHER) as subject:
        load = Running(subject.route(), LONGEST)
        wait_for_work(subject.pid, WARM_UP)
        switch(subject.server)
        wait_for_work(subject.pid, COUNTED_FOR)
        found = counted(subject.server)
        load.stop()
    answered = sum(each.calls for each in found if each.name == "Answering.taken")
    table = Table(f"{case}, a whole server ({answered} deliveries)", ("code", "functions called", "instructions"))
    own = [each for each in found if each.file.startswith(_OURS)]
    for what, some in (("harn", own), ("Twisted, libraries", [each for each in found if each not in own])):
        calls, instructions = sum(each.calls for each in some), sum(each.instructions for each in some)
        table.add(what, f"{calls / answered:,.1f}", f"{instructions / answered:,.0f}")
    table.show()
    if functions:
        show_functions(case, found, answered)


def show_functions(case: str, found: Sequence[Function], deliveries: int) -> None:
    """Print the functions of a whole server."""
    table = Table(f"{case}: functions", ("instructions", "calls", "function"))
    for each in found:
        if each.instructions / deliveries >= SHOWN:
            where = f"{each.file.removeprefix(_HOME)}:{each.line} {each.name}"
            table.add(f"{each.instructions / deliveries:,.1f}", f"{each.calls / deliveries:,.2f}", where)
    table.show()


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks steps", description=__doc__)
    parser.add_argument("--turns", type=int, default=4, help="turns of 32 deliveries")
    parser.add_argument("--functions", action="store_true", help="show the functions too")
    parser.add_argument("--server", action="store_true", help="count a whole server under load")
    options = parser.parse_args(arguments)
    if options.server:
        show_server("accepted", BLOCKING, ONE_AT_A_TIME, options.functions)
        show_server("accepted, handled, settled", QUICK, HEAD, options.functions)
        return 0
    deliveries = options.turns * CONNECTIONS
    accepted = show("accepted", count(1, options.turns), deliveries, options.functions)
    claims = count(1, options.turns, "event.dedupe_key")
    show("accepted, claimed by a dedupe key", claims, deliveries, options.functions)
    settled = count(64, options.turns, settles=True)
    show("accepted, handled, settled", settled, deliveries, options.functions)
    goals = Goals()
    goals.at_most("instructions for an accepted delivery", 2_200, [accepted], 0)
    goals.show()
    return goals.missed
