"""The server of `benchmarks.kills`: its triggers and handlers, who sends to it, and the operator who acts on it."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.subjects import replace
from harn.testing.manifests import trigger_text
from harn.testing.server import Answer, ServerProcess, wait_until

HANDLERS = '''"""Handlers of a benchmark: each leaves a line when it begins, and one when it ends well."""

import asyncio
import os
import time
import zlib

from harn.handlers import Reject

VERSION = "0"


def note(event, context, what):
    line = f"{what} {event.id} {context.attempt} {context.trigger_id} {time.time()!r}\\n"
    file = os.open(os.environ["BENCHMARK_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def is_there(name):
    return os.path.exists(os.path.join(os.path.dirname(os.environ["BENCHMARK_SEEN"]), name))


async def steady(event, context):
    note(event, context, "begins")
    await asyncio.sleep(0.01)
    note(event, context, "ends")


async def slow(event, context):
    note(event, context, "begins")
    await asyncio.sleep(1.5)
    note(event, context, "ends")


def flaky(event, context):
    """Fail so many attempts as the event's id says: none to four of four."""
    note(event, context, "begins")
    if context.attempt <= zlib.crc32(event.id.encode()) % 5:
        raise RuntimeError("not yet")
    note(event, context, "ends")


def away(event, context):
    """Fail while a file with the trigger's name is there."""
    note(event, context, "begins")
    if is_there(context.trigger_id):
        raise ConnectionError("no answer")
    note(event, context, "ends")


def deployed(event, context):
    """Reject everything until the fixed code is deployed."""
    note(event, context, "begins")
    if VERSION == "0":
        raise Reject("a bad deployment")
    note(event, context, "ends")
'''
FLAKY_ATTEMPTS, OTHER_ATTEMPTS = 4, 100
RETRY = "[triggers.retry]\nmax = {}\nschedule = [{}]\n"
DEDUPE = 'dedupe_key = "event.dedupe_key"\n'


@frozen(kw_only=True)
class Sent:
    """One trigger of the benchmark: its handler, further lines of its table, and events sent to it in a second."""

    handler: str = "steady"
    extra: str = RETRY.format(FLAKY_ATTEMPTS, '"500ms", "1s"')
    rate: float = 0.0


TRIGGERS: Mapping[str, Sent] = {
    "steady": Sent(rate=40.0),
    "slow": Sent(handler="slow", rate=1.0),
    "flaky": Sent(handler="flaky", rate=10.0),
    "held": Sent(rate=10.0),
    # Its circuit opens and closes all the time; that of `broken` opens once, and stays open over every restart.
    "away": Sent(
        handler="away",
        extra='circuit = { failures = 3, reset = "2s" }\n' + RETRY.format(OTHER_ATTEMPTS, '"500ms"'),
        rate=8.0,
    ),
    "broken": Sent(
        handler="away",
        extra='circuit = { failures = 3, reset = "1h" }\n' + RETRY.format(OTHER_ATTEMPTS, '"500ms"'),
        rate=2.0,
    ),
    "deployed": Sent(handler="deployed"),
}


def manifest(edition: int) -> str:
    """Return the manifest; each edition changes one trigger, so that a reload has something to do."""
    changed = list(TRIGGERS)[edition % len(TRIGGERS)]
    texts = ['[package]\nname = "benchmark"\n']
    for name, sent in TRIGGERS.items():
        timeout = f'timeout = "{30 + edition if name == changed else 30}s"\n'
        texts.append(trigger_text(name, handler=f"handlers:{sent.handler}", extra=timeout + DEDUPE + sent.extra))
    return "\n".join(texts)


def handlers(version: int) -> str:
    """Return the handlers' code as of a version; that of 0 is the bad deployment."""
    return HANDLERS.replace('VERSION = "0"', f'VERSION = "{version}"')


@define(eq=False)
class Life:
    """
    The server that runs now, for the threads that talk to it.

    :ivar ends: everything ends.
    """

    server: ServerProcess | None = None
    ends: bool = False

    def answers(self, ask: Callable[[ServerProcess], Answer]) -> Answer | None:
        """Return the answer of the server; None where it does not run, or died before it answered."""
        server = self.server
        if server is None:
            time.sleep(0.02)
            return None
        with suppress(OSError, http.client.HTTPException):
            return ask(server)
        time.sleep(0.02)
        return None


@define(eq=False)
class Sender:
    """
    Sends signed events to one trigger at a rate, and sends again what got no answer, as senders do.

    :ivar accepted: the id of each event that was answered as accepted, and its key.
    :ivar unanswered: requests that a kill cut off; ``duplicates``: answers that a key had been accepted before.
    :ivar wrong: answers that no sender should get.
    """

    life: Life
    trigger: str
    rate: float
    accepted: dict[str, str] = field(factory=dict)
    unanswered: int = 0
    duplicates: int = 0
    wrong: list[str] = field(factory=list)

    def run(self) -> None:
        """Send until everything ends."""
        number = 0
        due = time.monotonic()
        while not self.life.ends:
            due = max(due + 1.0 / self.rate, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            number += 1
            self.send(f"{self.trigger}-{number}")

    def send(self, key: str) -> None:
        """Send one event until it is answered; now and then once more."""
        while not self.life.ends and self.life.server is None:
            time.sleep(0.02)
        again = random.random() < 0.05
        while not self.life.ends:
            began = self.life.server
            answer = self.life.answers(lambda server: server.deliver(f"/triggers/{self.trigger}", delivery=key))
            if answer is None and began is None:
                continue
            if answer is None:
                self.unanswered += 1
            elif answer.status in (429, 503):
                time.sleep(0.1)
            else:
                self._take(key, answer)
                if not again:
                    return
                again = False

    def _take(self, key: str, answer: Answer) -> None:
        document = answer.json() if answer.status == 200 else {}
        if document.get("status") == "accepted":
            self.accepted[document["event_id"]] = key
        elif document.get("status") == "duplicate_dropped":
            self.duplicates += 1
        else:
            self.wrong.append(f"{key}: {answer}")


@define(eq=False)
class Operator:
    """
    Pauses and resumes a trigger and the job, breaks and fixes what `away` needs, discards dead letters.

    :ivar acting: held while one action is under way.
    :ivar is_paused: what the last answer said of `held`; None where a kill cut it off.
    :ivar pauses: from when until when it was paused (seconds, Unix); the last may be open.
    :ivar discarded: dead letters that were answered as discarded.
    :ivar job: the number of the bulk replay.
    """

    life: Life
    directory: Path
    acting: threading.Lock = field(factory=threading.Lock)
    is_paused: bool | None = False
    pauses: list[tuple[float, float]] = field(factory=list)
    paused_at: float | None = None
    discarded: list[str] = field(factory=list)
    job: int = 0
    done: dict[str, int] = field(factory=dict)

    def run(self) -> None:
        """Run actions until everything ends."""
        actions = (self.turn_pause, self.turn_away, self.turn_job, self.discard_some)
        while not self.life.ends:
            time.sleep(random.uniform(0.5, 2.0))
            if self.life.server is not None:
                with self.acting:
                    random.choice(actions)()

    def ask(self, method: str, target: str, document: Mapping[str, Any] | None = None) -> Answer | None:
        """Return the answer of the server, None where a kill cut it off."""
        answer = self.life.answers(lambda server: server.admin(method, target, document))
        if answer is not None:
            words = target.partition("?")[0].split("/")
            what = f"{words[2]} {words[-1]} {answer.status}"
            self.done[what] = self.done.get(what, 0) + 1
        return answer

    def turn_pause(self, wanted: bool | None = None) -> None:
        """Pause `held`, or resume it."""
        pauses = not self.is_paused if wanted is None else wanted
        if not pauses:
            self._end_pause()
        self.is_paused = None
        answer = self.ask("POST", f"/admin/triggers/held/{'pause' if pauses else 'resume'}", {})
        if answer is not None and answer.status == 200:
            self.is_paused = pauses
            if pauses and self.paused_at is None:
                self.paused_at = time.time()

    def _end_pause(self) -> None:
        if self.paused_at is not None:
            self.pauses.append((self.paused_at, time.time()))
            self.paused_at = None

    def seen_paused(self, paused: bool) -> bool:
        """Compare the answer of a restarted server about `held` with the last one; return whether they agree."""
        is_right = self.is_paused in (None, paused)
        self.is_paused = paused
        if not paused:
            self._end_pause()
        elif self.paused_at is None:
            self.paused_at = time.time()
        return is_right

    def turn_away(self) -> None:
        """Put the file there that makes `away` fail, or remove it."""
        path = self.directory / "away"
        if path.exists():
            path.unlink()
        else:
            path.touch()

    def turn_job(self) -> None:
        """Pause the bulk replay, and resume it soon."""
        for change in ("pause", "resume"):
            self.ask("POST", f"/admin/jobs/{self.job}/{change}", {})
            time.sleep(0.3)

    def discard_some(self) -> None:
        """Discard a few dead letters of `flaky`."""
        answer = self.ask("GET", "/admin/deliveries?state=dead&trigger=flaky&limit=3")
        if answer is None or answer.status != 200:
            return
        for listed in answer.json()["deliveries"]:
            done = self.ask("POST", f"/admin/deliveries/{listed['event_id']}/discard", {})
            if done is not None and done.status == 200:
                self.discarded.append(listed["event_id"])


def deploy(directory: Path, edition: int) -> None:
    """Put the next edition of manifest or handlers in place."""
    if edition % 2:
        replace(directory / "handlers.py", handlers(edition + 1))
    else:
        replace(directory / "harn.toml", manifest(edition))


@contextmanager
def under_way(*runs: Callable[[], None]) -> Iterator[None]:
    """Run each in a thread of its own."""
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(120.0)
        assert not thread.is_alive(), thread


def make_dead_letters(server: ServerProcess, count: int) -> list[str]:
    """Send so many events to the bad deployment; return their ids once all are dead letters."""
    connection = server.connect()
    accepted = [
        connection.deliver("/triggers/deployed", delivery=f"deployed-{number}").json()["event_id"]
        for number in range(count)
    ]
    connection.close()

    def dead() -> bool:
        total = server.admin("GET", "/admin/dead-letters").json()["total"]
        return int(total) >= count

    wait_until(dead, "all to be dead letters", 120.0)
    return accepted
