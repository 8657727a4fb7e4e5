"""A storm of orders on a real server: few runs, and every answer true."""

from __future__ import annotations

import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from urllib.parse import urlsplit

from harn.testing.server import API_KEY, Answer, ServerProcess, wait_until
from tests.integration.case import ServerCase

ORDERS = 100
OTHERS = 10
"""Descriptors that the server may close meanwhile: those of a start, and of an interpreter that is replaced."""
HANGS = """
note(importing=VERSION)
while not os.path.exists(os.environ["TEST_RELEASE"]):
    time.sleep(0.005)
"""
VERSION = re.compile(r'^VERSION = "(\w+)"$', re.MULTILINE)
ORDER = (
    "POST /admin/reload HTTP/1.1\r\nHost: harn\r\nContent-Type: application/json\r\n"
    f"Authorization: Bearer {API_KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
).encode()


class StormCase(ServerCase):
    """A server that gets many orders to reload at once."""

    def order(self, server: ServerProcess) -> list[socket.socket]:
        """Post a hundred orders, each on a connection of its own, and send as many signals between them."""
        address = urlsplit(server.url)
        open_before = server.descriptors()
        sockets = []
        for _ in range(ORDERS):
            sock = socket.create_connection((address.hostname, address.port), 60.0)
            self.addCleanup(sock.close)
            sock.sendall(ORDER)
            server.signal(signal.SIGHUP)
            sockets.append(sock)
        wait_until(lambda: server.descriptors() >= open_before + ORDERS - OTHERS, "the connections to be accepted")
        return sockets

    def answers(self, sockets: list[socket.socket]) -> list[Answer]:
        """Read all answers."""
        found = []
        for sock in sockets:
            response = HTTPResponse(sock)
            response.begin()
            found.append(Answer(response.status, {}, response.read()))
        return found

    def version(self, server: ServerProcess, generation: int) -> str:
        """Return the version of the code that a generation has in the store."""
        shown = server.admin("GET", f"/admin/generations/{generation}?sources=true").json()
        found = [VERSION.search(module["source"]) for module in shown["modules"]]
        [version] = [each[1] for each in found if each]
        return version

    def runs(self, server: ServerProcess) -> list[int]:
        """Return how many orders shared each reload that ran so far."""
        records = server.records("orchestrator.manifest")
        told = [each["payload"] for each in records if each["kind"] == "reload_succeeded"]
        return [payload["merged_requests"] for payload in told]


class StormTests(StormCase):
    """A hundred orders by HTTP and as many signals."""

    def test_while_a_reload_runs(self) -> None:
        """All that is asked while a reload runs is answered by one that follows, with what the files say by then."""
        server = self.serve()
        self.write_handlers("two", HANGS)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.reload)
            wait_until(lambda: any("importing" in each for each in self.seen()), "the first reload to import")
            self.write_handlers("three")
            sockets = self.order(server)
            for _ in range(3):  # the server has turned to each connection by then
                self.assertEqual(server.request("GET", "/health").status, 200)
            self.assertEqual(self.runs(server), [])
            self.release()
            answers = self.answers(sockets)
            self.assertEqual(first.result().json()["generation"], 2)
        self.assertEqual({answer.status for answer in answers}, {200})
        reports = [answer.json() for answer in answers]
        self.assertEqual({(report["status"], report["generation"]) for report in reports}, {("ok", 3)})
        self.assertEqual({report["source"] for report in reports}, {"admin_api"})
        self.assertEqual((self.version(server, 2), self.version(server, 3)), ("two", "three"))
        runs = self.runs(server)
        self.assertLessEqual(len(runs), 3)
        self.assertEqual(runs[0], 1)
        self.assertGreater(sum(runs[1:]), ORDERS)  # the signals, too; a process may see many as one

    def test_out_of_the_blue(self) -> None:
        """Nothing runs when it begins, and the code changes half way: each answer names what was there, or newer."""
        server = self.serve()
        self.write_handlers("two")
        early = self.order(server)
        self.write_handlers("three")
        late = self.order(server)
        reports = [[answer.json() for answer in self.answers(sockets)] for sockets in (early, late)]
        self.assertEqual({report["status"] for some in reports for report in some}, {"ok"})
        versions = [{self.version(server, report["generation"]) for report in some} for some in reports]
        self.assertLessEqual(versions[0], {"two", "three"})
        self.assertEqual(versions[1], {"three"})
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["version"], "three")
        self.assertFalse(server.generation()["drift"])
        # Those that changed nothing ran, too, and are counted; what was asked together ran together.
        self.assertLess(len(self.runs(server)), ORDERS // 2)

    def test_broken(self) -> None:
        """Every caller gets the problems of a broken manifest, from the same few runs; the live generation stays."""
        server = self.serve()
        self.write("harn.toml", "nonsense [")
        sockets = self.order(server)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        answers = self.answers(sockets)
        self.assertEqual({answer.status for answer in answers}, {422})
        told = {(report["stage"], report["generation"]) for report in (answer.json() for answer in answers)}
        self.assertEqual(told, {("parse", 1)})
        self.assertEqual(server.state()["last_reload"]["status"], "error")
        self.wait_handled("d1")

    def test_end_of_the_server(self) -> None:
        """SIGTERM in the midst of it: every caller is answered that there is no reload; the server ends in order."""
        server = self.serve()
        self.write_handlers("two", HANGS)
        sockets = self.order(server)
        wait_until(lambda: any("importing" in each for each in self.seen()), "a reload to import")
        server.signal(signal.SIGTERM)
        answers = self.answers(sockets)
        self.assertEqual({answer.status for answer in answers}, {503})
        for sock in sockets:
            sock.close()
        self.assertEqual(server.wait(), 0, server.stderr)
        self.assertNotIn("Traceback", server.stderr)
        self.assertEqual(server.state()["generation"], 1)
