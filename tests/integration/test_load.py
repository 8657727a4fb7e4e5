"""
The promise of the whole: reload after reload under load, and nothing fails, is lost, or happens twice.

``HARN_LOAD_SECONDS`` (20 by default) says for how long, at least.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from typing import Any

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text
from tests.integration.clients import Clients

SECONDS = float(os.environ.get("HARN_LOAD_SECONDS", "20"))
CLIENTS = 64
RATE = 400.0
RELOADS = 100
MOST_DRAINING = 4
GROWTH = 1.10

HANDLERS = '''
async def on_load(event, context):
    """Take a while, so that something is in flight at each reload."""
    await asyncio.sleep(0.05)
    note(key=event.dedupe_key, binding=context.binding)
'''


class LoadTests(ServerCase):
    """64 clients, a hundred reloads, a fifth of them broken, by every way to ask for one."""

    def test_reloads_under_load(self) -> None:
        """No request fails, no delivery is lost or handled twice, nothing drains for long, memory stays."""
        self.write_version(0)
        server = self.serve("--watch")
        clients = Clients(server.url, "/triggers/gh", CLIENTS, RATE)
        self.addCleanup(clients.close)
        self.problem: Exception | None = None
        self.first_resident = 0
        self.most_draining = 0
        self.outcomes: Counter[str] = Counter()
        reloads = threading.Thread(target=self.reload_all, args=(server,))
        started = time.monotonic()
        reloads.start()
        clients.run(lambda: not reloads.is_alive() and time.monotonic() - started >= SECONDS)
        reloads.join()
        if self.problem is not None:
            raise self.problem
        self.assertEqual(clients.failures, [])
        self.assertGreater(len(clients.accepted), 1000)
        wait_until(lambda: len(self.handled()) >= len(clients.accepted), "every delivery to be handled")
        handled = Counter(self.handled())
        self.assertEqual({key: count for key, count in handled.items() if count != 1}, {})
        self.assertEqual(set(handled), set(clients.accepted))
        self.assertEqual(self.outcomes["ok"] + self.outcomes["error"], RELOADS)
        self.assertLessEqual(self.most_draining, MOST_DRAINING)
        wait_until(lambda: not self.draining(server), "nothing to drain")
        self.assertEqual(server.records("trigger.dlq"), [])
        allowed = GROWTH * self.first_resident
        self.assertLess(server.resident(), allowed, f"{self.first_resident} KiB after the first reload")
        self.assertEqual(server.terminate(), 0, server.stderr)

    def reload_all(self, server: ServerProcess) -> None:
        """Request one reload after another; keep what goes wrong for the test."""
        try:
            for number in range(1, RELOADS + 1):
                self.reload_once(server, number)
                if number == 1:
                    self.first_resident = server.resident()
                self.most_draining = max(self.most_draining, len(self.draining(server)))
        except Exception as problem:
            self.problem = problem

    def reload_once(self, server: ServerProcess, number: int) -> None:
        """Edit the files, right or wrong, ask in one of four ways, and wait until the server has seen them."""
        is_right = number % 5 != 0
        self.write_version(number, is_right)
        way = "command" if number // 2 % 10 == 2 else ("signal", "request", "watch")[number // 2 % 3]
        if way == "signal":
            server.signal(signal.SIGHUP)
        elif way == "command":
            done = self.orchestrator("reload")
            assert done.status == (0 if is_right else 1), done
        elif way == "request":
            answer = server.reload()
            assert answer.status == (200 if is_right else 422), answer
        if is_right:
            wait_until(lambda: not server.generation()["drift"], f"reload {number} by {way}")
        else:
            wait_until(lambda: server.generation()["last_failed"], f"reload {number} by {way} to fail")
        self.outcomes["ok" if is_right else "error"] += 1

    def write_version(self, number: int, is_right: bool = True) -> None:
        """Write a manifest and handlers that differ from all others, or are wrong in one of three ways."""
        wrong = {5: "nonsense [", 10: "nowhere:nothing", 15: "filtre = 'x'"}[number % 15 or 15] if not is_right else ""
        self.write_handlers(f"v{number}", HANDLERS)
        text = trigger_text(
            "gh",
            handler=wrong if ":" in wrong else "handlers:on_load",
            extra=f'timeout = "{30 + number}s"\ndedupe_key = "event.dedupe_key"\n' + (wrong if "=" in wrong else ""),
        )
        self.write_manifest(text + (wrong if "[" in wrong else ""))

    def draining(self, server: ServerProcess) -> list[dict[str, Any]]:
        """Return the versions that drain."""
        return [each for each in server.bindings() if each["state"] == "draining"]
