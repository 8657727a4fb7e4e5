"""Clients of several servers: each keeps every request that it sends, with its answer."""

from __future__ import annotations

import http.client
import random
import threading
import time
from contextlib import suppress

from attrs import define, field

from benchmarks.history import ACCEPTED, AWAY, DUPLICATE, EXPECTED, NO_ANSWER, Request
from benchmarks.several import PATIENCE, TRIGGERS, Servers, document_of
from harn.testing.server import Answer, Connection, ServerProcess

SETTLE = 0.02
"""Seconds that a client waits after a request that no server took."""


@define(eq=False)
class Client:
    """
    Sends signed events at a rate to servers at random, each again until it is answered, and now and then once more.

    :ivar rate: events a second. ``goes_on``: cleared at the end. ``only``: the place of the one server that it asks.
    """

    servers: Servers
    number: int
    rate: float
    goes_on: threading.Event
    only: int | None = None
    requests: list[Request] = field(factory=list)
    _connections: dict[str, Connection] = field(factory=dict)

    def run(self) -> None:
        """Send until the end."""
        due = time.monotonic()
        count = 0
        while self.goes_on.is_set():
            due = max(due + 1.0 / self.rate, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            count += 1
            trigger = "slow" if random.random() < 0.02 else random.choice(TRIGGERS[:-1])
            key = f"{trigger}-{self.number}-{count}"
            self.send(trigger, key)
            if random.random() < 0.05:
                self.send(trigger, key)

    def send(self, trigger: str, key: str) -> None:
        """Send one event until a server has it; also after the end, so that nothing stays open."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            place = random.randrange(self.servers.count) if self.only is None else self.only
            server = self.servers.running[place]
            if server is None or self.ask(server, trigger, key) not in (ACCEPTED, DUPLICATE):
                time.sleep(SETTLE)
            else:
                return

    def ask(self, server: ServerProcess, trigger: str, key: str) -> str:
        """Send one request; keep it with its answer; return the status."""
        life = self.servers.pids[server.pid]
        sent_at = time.time()
        answer = self._answer(server, life, trigger, key)
        if answer is None:
            status, event_id, generation = NO_ANSWER, "", 0
        else:
            document = document_of(answer)
            status = str(document.get("status", answer.status)) if answer.status not in (429, 503) else AWAY
            event_id = str(document.get("event_id", "")) if status == ACCEPTED else ""
            generation = int(answer.headers.get("harn-generation", 0)) if status in EXPECTED - {AWAY} else 0
        self.requests.append(
            Request(
                trigger=trigger,
                key=key,
                life=life,
                status=status,
                sent_at=sent_at,
                answered_at=time.time(),
                event_id=event_id,
                generation=generation,
            )
        )
        return status

    def _answer(self, server: ServerProcess, life: str, trigger: str, key: str) -> Answer | None:
        with suppress(OSError, http.client.HTTPException, AssertionError):
            connection = self._connections.get(life)
            if connection is None:
                connection = self._connections[life] = server.connect(10.0)
            return connection.deliver(f"/triggers/{trigger}", delivery=key)
        connection = self._connections.pop(life, None)
        if connection is not None:
            connection.close()
        return None
