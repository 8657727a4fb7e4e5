"""
A storm of orders: a hundred ``POST /admin/reload`` and a hundred SIGHUPs at once give few runs, and only true answers.

An answer is true when the generation that it names has the manifest of the time of the order, or a newer one: the
content of each generation is read back from the server's store. In every second storm the manifest changes half way.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import time
from collections.abc import Sequence
from http.client import HTTPResponse
from urllib.parse import urlsplit

from attrs import frozen

from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import HEAD, Harn, harn_server, replace
from harn.testing.manifests import manifest_text
from harn.testing.server import API_KEY

TRIGGERS = 10
MOST_RUNS = 3
MANIFEST = "orchestrator.manifest"
_TIMEOUT = re.compile(r'^timeout = "(\d+)s"$', re.MULTILINE)
"""The line that differs between states of the manifest."""


@frozen(kw_only=True)
class Storm:
    """
    The result of one storm.

    :ivar changes: whether the manifest changed half way.
    :ivar runs: reloads that ran; ``merged``: orders that shared them.
    :ivar answers: POSTs that were answered 200; ``true``: those of which the answer was true.
    :ivar took: from the first order to the last answer (ms).
    """

    changes: bool
    runs: int
    merged: int
    answers: int
    true: int
    took: float


def manifest_of(state: int) -> str:
    """Return the manifest of one state: every trigger differs from the previous state."""
    return manifest_text(TRIGGERS, head=HEAD, extra=f'timeout = "{state}s"\n')


def state_of(subject: Harn, generation: int) -> int:
    """Read from the server's store the state of a generation's manifest."""
    answer = subject.server.admin("GET", f"/admin/generations/{generation}")
    assert answer.status == 200, answer
    found = _TIMEOUT.search(answer.json()["manifest"])
    assert found is not None, answer.json()["manifest"]
    return int(found[1])


def latest_record(subject: Harn) -> int:
    """Return the number of the last record about reloads."""
    latest: int = subject.server.admin("GET", f"/admin/events/{MANIFEST}?limit=1").json()["latest"]
    return latest


def raise_storm(subject: Harn, orders: int, state: int, *, changes: bool) -> Storm:
    """
    Send this many orders of each kind, as fast as one thread can, and read the answers.

    :param state: the manifest's from now on; if it ``changes``, the next one is set half way.
    """
    server = subject.server
    parts = urlsplit(server.url)
    request = (
        f"POST /admin/reload HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {API_KEY}\r\n"
        "Content-Length: 2\r\n\r\n{}"
    ).encode()
    after = latest_record(subject)
    sockets = [socket.create_connection((parts.hostname or "", parts.port or 80), 60.0) for _ in range(orders)]
    replace(subject.manifest, manifest_of(state))
    following = manifest_of(state + 1)
    asked_of = []
    began = time.perf_counter()
    for number, connection in enumerate(sockets):
        if changes and number == orders // 2:
            replace(subject.manifest, following)
        asked_of.append(state + 1 if changes and number >= orders // 2 else state)
        connection.sendall(request)
        server.signal(signal.SIGHUP)
    generations = [answered_generation(connection) for connection in sockets]
    took = (time.perf_counter() - began) * 1e3
    # Runs are strictly one after the other: after a dry run, none of these orders waits any more.
    assert server.reload("?dry_run=true").status == 200
    records = [record["payload"] for record in server.records(MANIFEST, after)]
    states = {generation: state_of(subject, generation) for generation in {*generations} - {0}}
    return Storm(
        changes=changes,
        runs=len(records),
        merged=sum(payload["merged_requests"] for payload in records),
        answers=sum(generation > 0 for generation in generations),
        true=sum(
            generation > 0 and states[generation] >= asked
            for generation, asked in zip(generations, asked_of, strict=True)
        ),
        took=took,
    )


def answered_generation(connection: socket.socket) -> int:
    """Read an answer and close the connection; return the generation that it names, 0 unless it is a success."""
    with connection, HTTPResponse(connection, method="POST") as response:
        try:
            response.begin()
            document = json.loads(response.read())
        except (OSError, ValueError):
            return 0
        return int(document["generation"]) if response.status == 200 else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks storm", description=__doc__)
    parser.add_argument("--storms", type=int, default=20)
    parser.add_argument("--orders", type=int, default=100, help="POSTs of a storm, and as many SIGHUPs")
    options = parser.parse_args(arguments)
    with harn_server(TRIGGERS) as subject:
        storms = [
            raise_storm(subject, options.orders, 1000 + 2 * number, changes=number % 2 == 1)
            for number in range(options.storms)
        ]
    table = Table(
        f"{options.storms} storms of {options.orders} POSTs and {options.orders} SIGHUPs",
        ("the manifest", "storms", "runs", "orders that the runs served", "ms until the last answer"),
    )
    for changes, what in ((False, "changed before"), (True, "changed before and half way")):
        some = [storm for storm in storms if storm.changes == changes]
        if some:
            table.add(
                *(what, str(len(some)), spread([float(each.runs) for each in some], 0)),
                *(spread([float(each.merged) for each in some], 0), spread([each.took for each in some])),
            )
    table.show()
    goals = Goals()
    goals.at_most("runs of a storm, at most", MOST_RUNS, [float(max(storm.runs for storm in storms))], 0)
    goals.at_least("orders answered 200, at least", options.orders, [float(min(storm.answers for storm in storms))], 0)
    goals.at_least("true answers, at least", options.orders, [float(min(storm.true for storm in storms))], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
