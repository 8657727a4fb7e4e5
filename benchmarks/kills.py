"""
kill -9, again and again, for minutes: while events come, deliveries fail and are retried, a circuit opens and closes,
a trigger is paused and resumed, a job replays dead letters in bulk, and reloads are under way.

Afterwards the server works off the rest, and is ended. Then its store and its handlers' own lines are compared with
the answers that senders and operator got: nothing lost, nothing run too often, no key accepted twice.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from benchmarks.figures import Goals, Table, spread
from benchmarks.kills_account import DEAD, DISCARDED, DONE, REPLAYED, Account, read_account, reasons
from benchmarks.kills_traffic import (
    TRIGGERS,
    Life,
    Operator,
    Sender,
    deploy,
    handlers,
    make_dead_letters,
    manifest,
    under_way,
)
from harn.testing.server import ServerProcess, environment, wait_until

DEAD_LETTERS = 2_000
ENDS = (DONE, DEAD, DISCARDED, REPLAYED)
EARLY = 0.15
"""The share of servers that are killed before they serve."""
PATIENCE = 600.0
"""Seconds in which the last server works off what the others have left."""


@define(eq=False)
class Lives:
    """
    The servers, one after the other, on one state directory.

    :ivar kills: when each was killed (seconds, Unix); ``starts``: how long each took until it served (seconds).
    :ivar lost: what a server did not have any more that the one before it had answered.
    """

    directory: Path
    life: Life
    operator: Operator
    kills: list[float] = field(factory=list)
    starts: list[float] = field(factory=list)
    early: int = 0
    reloads: list[int | None] = field(factory=list)
    lost: list[str] = field(factory=list)
    retry_at: str | None = None

    def start(self) -> ServerProcess:
        """Start a server, and wait until it serves."""
        began = time.perf_counter()
        server = self.begin().wait_ready()
        self.starts.append(time.perf_counter() - began)
        return server

    def begin(self) -> ServerProcess:
        """Start a server."""
        return ServerProcess(self.directory, environ=environment({"BENCHMARK_SEEN": str(self.directory / "seen.txt")}))

    def kill(self, server: ServerProcess) -> None:
        """Kill a server."""
        self.life.server = None
        server.kill()
        self.kills.append(time.time())
        server.stop()

    def one(self, edition: int) -> None:
        """Start a server, check that it has what was answered before, and kill it in the middle of everything."""
        if random.random() < EARLY:
            server = self.begin()
            time.sleep(random.uniform(0.0, 2.0))
            self.early += 1
            self.kill(server)
            return
        server = self.start()
        with self.operator.acting:
            self.compare(server)
        self.life.server = server
        time.sleep(random.uniform(0.5, 2.0))
        reloading = threading.Thread(target=self.reload, args=(server, edition), daemon=True)
        if random.random() < 0.6:
            reloading.start()
        time.sleep(random.uniform(0.0, 2.0))
        self.kill(server)
        if reloading.ident is not None:
            reloading.join(60.0)

    def reload(self, server: ServerProcess, edition: int) -> None:
        """Reload an edition of the files; note the answer's status, None where a kill cut it off."""
        deploy(self.directory, edition)
        status = None
        with suppress(OSError, EOFError):
            status = server.reload().status
        self.reloads.append(status)

    def compare(self, server: ServerProcess) -> None:
        """Compare the pause and the circuit that are open with those before the last kill."""
        listed = {each["id"]: each for each in server.admin("GET", "/admin/inspect").json()["triggers"]}
        if not self.operator.seen_paused(listed["held"]["paused"]):
            self.lost.append(f"the pause of held is {listed['held']['paused']} after {len(self.kills)} kills")
        circuits = {each["trigger_id"]: each for each in server.admin("GET", "/admin/circuits").json()["circuits"]}
        found = circuits["broken"]
        if self.retry_at is not None and (found["state"], found["retry_at"]) != ("open", self.retry_at):
            self.lost.append(f"the circuit of broken is {found} after {len(self.kills)} kills")

    def wait_open(self, server: ServerProcess) -> None:
        """Wait until the circuit of `broken` is open, and note until when."""

        def opened() -> str | None:
            for each in server.admin("GET", "/admin/circuits").json()["circuits"]:
                if each["trigger_id"] == "broken" and each["state"] == "open":
                    return str(each["retry_at"])
            return None

        for number in range(5):
            server.deliver("/triggers/broken", delivery=f"broken-first-{number}")
        self.retry_at = wait_until(opened, "the circuit to open")
        time.sleep(1.0)  # until that is on disk


def prepare(lives: Lives, seconds: float) -> list[str]:
    """Make dead letters, fix the code, and order their replay, at a rate that takes the whole time."""
    directory = lives.directory
    (directory / "harn.toml").write_text(manifest(0))
    (directory / "handlers.py").write_text(handlers(0))
    (directory / "broken").touch()
    server = lives.start()
    letters = make_dead_letters(server, DEAD_LETTERS)
    (directory / "handlers.py").write_text(handlers(1))
    assert server.reload().status == 200
    lives.wait_open(server)
    wanted = {"trigger": "deployed", "state": "dead", "rate_limit": f"{max(10.0, DEAD_LETTERS / seconds * 2):g}"}
    answer = server.admin("POST", "/admin/replay", wanted)
    assert answer.status == 200, answer
    lives.operator.job = answer.json()["job"]
    lives.kill(server)
    return letters


def finish(lives: Lives) -> float:
    """Start a last server, wait until it has worked off everything, and end it; return how long that took (seconds)."""
    server = lives.start()
    lives.compare(server)
    lives.life.server = server
    began = time.perf_counter()
    for name in ("away", "broken"):
        (lives.directory / name).unlink(missing_ok=True)
    operator = lives.operator
    operator.turn_pause(wanted=False)
    for target in ("circuits/broken/close", f"jobs/{operator.job}/resume"):
        server.admin("POST", f"/admin/{target}", {})

    def is_done() -> bool:
        job = server.admin("GET", f"/admin/jobs/{operator.job}").json()
        left = [
            server.admin("GET", f"/admin/deliveries?state={state}&limit=1").json()["deliveries"]
            for state in ("ready", "waiting", "running")
        ]
        return bool(job["state"] == "done" and not any(left))

    wait_until(is_done, "everything to end", PATIENCE)
    took = time.perf_counter() - began
    status = server.terminate()
    assert status == 0, server.stderr[-2000:]
    server.stop()
    return took


def show(lives: Lives, senders: Sequence[Sender], account: Account, took: float) -> None:
    """Print the figures."""
    again, after_end = account.repeated()
    table = Table("Kills", ("what", "figure"))
    accepted = sum(len(sender.accepted) for sender in senders)
    answered = [status for status in lives.reloads if status is not None]
    for what, figure in (
        ("kills (of these before the server served)", f"{len(lives.kills)} ({lives.early})"),
        ("start until it serves (s)", spread(lives.starts, 2)),
        ("reloads answered (200), cut off", f"{len(answered)} ({answered.count(200)}), {lives.reloads.count(None)}"),
        ("events answered as accepted", f"{accepted + DEAD_LETTERS:,}"),
        ("requests cut off by a kill", f"{sum(sender.unanswered for sender in senders):,}"),
        ("answers that a key was accepted before", f"{sum(sender.duplicates for sender in senders):,}"),
        ("deliveries in the store", f"{len(account.rows):,}"),
        (
            "done, dead, discarded, replayed",
            ", ".join(f"{account.count(s):,}" for s in (DONE, DEAD, DISCARDED, REPLAYED)),
        ),
        ("reasons of dead letters", reasons(account)),
        ("attempts in the store", f"{sum(row.attempts for row in account.rows.values()):,}"),
        ("calls repeated after a kill (of these had ended)", f"{again:,} ({after_end:,})"),
        ("requests of the operator", ", ".join(f"{what}: {n}" for what, n in sorted(lives.operator.done.items()))),
        ("rest worked off in (s)", f"{took:.1f}"),
    ):
        table.add(what, figure)
    table.show()


def compare_all(lives: Lives, senders: Sequence[Sender], account: Account, letters: Sequence[str]) -> Goals:
    """Compare everything that was left behind with the answers; each kind of problem is a missed goal."""
    operator = lives.operator
    keys = {event_id: key for sender in senders for event_id, key in sender.accepted.items()}
    account.check_accepted([*keys, *letters], operator.discarded)
    account.check_ends()
    account.check_attempts(lives.kills)
    account.check_keys(keys)
    account.check_job(letters)
    account.check_pauses(operator.pauses)
    account.check_store()
    account.problems["pauses or circuits lost by a kill"] += lives.lost
    account.problems["answers that no sender should get"] += [each for sender in senders for each in sender.wrong]
    account.problems["reloads refused"] += [str(status) for status in lives.reloads if status not in (None, 200)]
    goals = Goals()
    for what, found in account.problems.items():
        goals.at_most(what, 0, [float(len(found))], 0)
        for each in found[:5]:
            print(f"{what}: {each}")
    goals.at_most("problems of any kind", 0, [float(sum(map(len, account.problems.values())))], 0)
    return goals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--keep", metavar="DIR", help="an empty directory to work in, which is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(options.keep or temporary).resolve()
        life = Life()
        operator = Operator(life, directory)
        lives = Lives(directory, life, operator)
        letters = prepare(lives, options.seconds)
        senders = [Sender(life, name, sent.rate) for name, sent in TRIGGERS.items() if sent.rate]
        ends = time.monotonic() + options.seconds
        with under_way(*(sender.run for sender in senders), operator.run):
            edition = 1
            while time.monotonic() < ends:
                edition += 1
                lives.one(edition)
            life.ends = True
        took = finish(lives)
        account = read_account(directory / "state", directory / "seen.txt", operator.job)
    show(lives, senders, account, took)
    goals = compare_all(lives, senders, account, letters)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
