"""Several servers on one PostgreSQL, for benchmarks: one set of files, a state directory each, and who runs now."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from benchmarks.history import History, Loss, Request, Run, Stored
from benchmarks.subjects import replace
from harn.testing.manifests import trigger_text
from harn.testing.server import Answer, ServerProcess, environment

HANDLERS = '''"""Handlers of a benchmark: each leaves a line when it begins, and one when it ends."""

import asyncio
import os
import time

CODE = "0"
LIFE = os.environ["BENCHMARK_LIFE"]


def note(event, context, what):
    line = f"{what} {event.id} {context.binding} {CODE} {LIFE} {context.attempt} {time.time()!r}\\n"
    file = os.open(os.environ["BENCHMARK_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


async def steady(event, context):
    note(event, context, "begins")
    await asyncio.sleep(0.01)
    note(event, context, "ends")


async def slow(event, context):
    note(event, context, "begins")
    await asyncio.sleep(1.5)
    note(event, context, "ends")
'''
TRIGGERS = ("one", "two", "three", "slow")
SETTINGS = ("fsync=off", "full_page_writes=off", "autovacuum_naptime=5s", "max_connections=60")
"""Of a PostgreSQL that is not killed, and is looked after as one in use is."""
PATIENCE = 120.0
"""Seconds in which the servers work off what was left, and one of them takes what a client sends."""
_RETENTION = "[orchestrator.retention]\ngenerations = 1000\n"
"""The account at the end is of all versions that ever ran."""
_DEDUPE = 'dedupe_key = "event.dedupe_key"\n'


def manifest(url: str, head: str = "", more: str = "") -> str:
    """Return the manifest; ``head``: further lines of ``[orchestrator]``; ``more``: further triggers."""
    beginning = f'[package]\nname = "benchmark"\n\n[orchestrator]\nstore = "{url}"\n{head}'
    triggers = (
        trigger_text(name, handler=f"handlers:{'slow' if name == 'slow' else 'steady'}", extra=_DEDUPE)
        for name in TRIGGERS
    )
    return "\n".join((beginning, _RETENTION, *triggers, more))


def handlers(edition: int, more: str = "") -> str:
    """Return an edition of the handlers' source; ``more``: what runs when it is imported."""
    return HANDLERS.replace('CODE = "0"', f'CODE = "{edition}"') + more


@define(eq=False)
class Servers:
    """
    The servers, by place; each start of one is a life, named PLACE.NUMBER.

    :ivar pids: the life of each process id. ``environ``: by place, further variables.
    """

    directory: Path
    count: int
    url: str
    running: list[ServerProcess | None] = field(init=False)
    lives: list[int] = field(init=False)
    pids: dict[int, str] = field(factory=dict)
    environ: dict[int, Mapping[str, str]] = field(factory=dict)
    losses: list[Loss] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Put the first edition of the files in place."""
        self.running = [None] * self.count
        self.lives = [0] * self.count
        (self.directory / "harn.toml").write_text(manifest(self.url))
        self.deploy(0)

    def deploy(self, edition: int, more: str = "") -> None:
        """Put an edition of the handlers in place."""
        replace(self.directory / "handlers.py", handlers(edition, more))

    def life(self, place: int) -> str:
        """Return the name of the process at a place."""
        return f"{place}.{self.lives[place]}"

    def begin(self, place: int) -> ServerProcess:
        """Start the server of a place."""
        self.lives[place] += 1
        named = {"BENCHMARK_SEEN": str(self.directory / "seen.txt"), "BENCHMARK_LIFE": self.life(place)}
        named.update(self.environ.get(place, {}))
        server = ServerProcess(self.directory, state_dir=f"state{place}", environ=environment(named))
        self.pids[server.pid] = self.life(place)
        self.running[place] = server
        return server

    def start_all(self) -> None:
        """Start all, one after the other."""
        for place in range(self.count):
            self.begin(place).wait_ready()

    def stop_all(self) -> list[str]:
        """End all in good order; return what one said that did not end so."""
        wrong = []
        for place, server in enumerate(self.running):
            if server is not None:
                status = server.terminate()
                if status:
                    wrong.append(f"server {self.life(place)} ended with {status}: {server.stderr[-2000:]}")
                server.stop()
        return wrong

    def keep_log(self, place: int) -> None:
        """Write the log of the process of a place to a file with its life's name."""
        server = self.running[place]
        if server is not None:
            (self.directory / f"{self.life(place)}.log").write_text("\n".join(list(server.lines)) + "\n")

    def close(self) -> None:
        """Kill all that run, and keep what they logged."""
        for place in range(self.count):
            self.keep_log(place)
        for server in self.running:
            if server is not None:
                server.stop()


def is_ready(server: ServerProcess) -> bool:
    """Return whether a server serves now."""
    with suppress(OSError, http.client.HTTPException, AssertionError):
        return server.request("GET", "/readyz").status == 200
    return False


def generation_of(server: ServerProcess) -> int:
    """Return the generation that a server serves now."""
    return int(server.generation()["generation"])


def generations(servers: Servers) -> list[int]:
    """Return the generation of each server; 0 where one does not say."""
    found = []
    for server in servers.running:
        generation = 0
        with suppress(OSError, http.client.HTTPException, AssertionError):
            generation = 0 if server is None else generation_of(server)
        found.append(generation)
    return found


def document_of(answer: Answer) -> Mapping[str, Any]:
    """Return the JSON object of an answer; an empty one where there is none."""
    with suppress(ValueError):
        document = answer.json()
        if isinstance(document, dict):
            return document
    return {}


# What they leave behind


def read_runs(seen: Path) -> Sequence[Run]:
    """Read the lines of handlers."""
    runs: dict[tuple[str, str, str, str], Run] = {}
    for line in seen.read_text().splitlines():
        what, event_id, binding, code, life, attempt, at = line.split()
        trigger, _, version = binding.rpartition("@v")
        key = event_id, binding, life, attempt
        began = runs.get(key)
        if what == "begins" and began is not None:
            key = event_id, binding, life, f"{attempt} again at {at}"  # the same server began it twice
        began_at, ended_at = (float(at), None) if what == "begins" else (runs[key].began_at, float(at))
        runs[key] = Run(
            event_id=event_id,
            trigger=trigger,
            version=int(version),
            code=code,
            life=life,
            began_at=began_at,
            ended_at=ended_at,
        )
    return list(runs.values())


_STORED = (
    "SELECT d.event_id, d.trigger_id, convert_from(e.envelope, 'UTF8')::json->>'dedupe_key', d.version,"
    " d.state = 2 AND d.ended_as = 0 FROM deliveries d JOIN events e ON e.id = d.id"
)
_FENCED = (
    "SELECT convert_from(log.payload, 'UTF8')::json->>'id', coalesce(s.ended_at, log.occurred_at), log.occurred_at"
    " FROM log LEFT JOIN servers s ON s.incarnation = (convert_from(log.payload, 'UTF8')::json->>'incarnation')::bigint"
    " WHERE log.topic = 'orchestrator.servers' AND log.kind = 'server_fenced'"
)
_LEFT = "SELECT count(*) FROM harn.deliveries WHERE state < 2"


def left(url: str) -> int:
    """Count the deliveries in the store that are not finished."""
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute(_LEFT).fetchone()
    return 0 if found is None else int(found[0])


def _stored(event_id: str, trigger: str, key: str, version: int, is_done: bool) -> Stored:
    return Stored(event_id=event_id, trigger=trigger, key=key, version=version, is_done=is_done)


def read_history(servers: Servers, requests: Sequence[Request], editions: Mapping[int, str]) -> History:
    """Put everything together, with SQL of this module's own."""
    import psycopg

    with psycopg.connect(servers.url) as connection:
        connection.execute("SET search_path = harn")
        stored = [_stored(*row) for row in connection.execute(_STORED)]
        fenced = [
            Loss(life=servers.pids[int(name.rpartition(":")[2])], at=at, until=until)
            for name, at, until in connection.execute(_FENCED)
        ]
        decided = connection.execute("SELECT number FROM generations WHERE adopted_at IS NOT NULL").fetchall()
        versions = connection.execute("SELECT trigger_id, version, generation FROM binding_versions").fetchall()
    return History(
        requests=requests,
        runs=read_runs(servers.directory / "seen.txt"),
        stored=stored,
        losses=[*servers.losses, *fenced],
        decided=frozenset(number for (number,) in decided),
        versions={(trigger, version): generation for trigger, version, generation in versions},
        editions=editions,
    )


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """Keep the requests of clients, one a line, to look at them later."""
    from attrs import asdict

    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in requests))
