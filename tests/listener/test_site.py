"""The table of routes: built off to the side, swapped in one assignment, found by path."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn import errors
from harn.listener.pages import make_pages
from harn.listener.problems import problem, problem_of, shown, status_of
from harn.operations.statuses import Status
from harn.reload.interfaces import IRouteTable
from harn.server import Readiness
from harn.testing.clients import request_bytes
from harn.testing.clocks import NoThreads
from tests.listener.world import World, signed_post


class RouteTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()

    def test_interface(self) -> None:
        """The site is the route table that reloading swaps."""
        verifyObject(IRouteTable, self.world.site)

    def test_building_serves_nothing(self) -> None:
        """A tree that is built and never swapped in changes nothing."""
        other = self.world.trigger("other", "/other")
        self.world.site.build({"/other": other.route})
        wire = self.world.wire()
        self.assertEqual(wire.send(signed_post("/other")).answer().status, 404)
        self.assertEqual(wire.send(signed_post("/hooks/gh")).answer().status, 200)
        self.assertEqual(self.world.site.generation, 1)

    def test_many_routes(self) -> None:
        """Ten thousand routes are a dict of ten thousand entries, and each is found."""
        one = self.world.gh.route
        routes = {f"/triggers/t{number}": one for number in range(10_000)}
        tree = self.world.site.build(routes)
        self.world.site.swap(tree, 2)
        self.assertEqual(len(self.world.site.tree.routes), 10_000)
        for target in ("/triggers/t0", "/triggers/t9999"):
            self.assertEqual(self.world.wire().send(signed_post(target)).answer().status, 200)

    def test_same_table_again(self) -> None:
        """A tree may be swapped in twice, under another number each time."""
        tree = self.world.site.tree
        self.world.site.swap(tree, 5)
        self.world.site.swap(tree, 6)
        self.assertEqual((self.world.site.generation, tree.generation), (6, 1))
        answer = self.world.wire().send(signed_post("/hooks/gh")).answer()
        self.assertEqual(answer.headers["harn-generation"], "6")

    def test_mounted(self) -> None:
        """A place that is mounted later answers for its prefix, and not for paths that only begin like it."""
        pages = make_pages(self.world.metrics, Readiness(), NoThreads())
        self.world.site.mount("/console", pages["/health"])
        for target, status in (("/console", 200), ("/console/x", 200), ("/consoles", 404)):
            self.assertEqual(self.world.wire().send(request_bytes("GET", target)).answer().status, status, target)


class StatusTests(SynchronousTestCase):
    def test_every_refusal(self) -> None:
        """Each class of refused requests has a status of its own kind; anything else is 500."""
        pending: list[type[errors.Refused]] = [errors.Refused]
        while pending:
            kind = pending.pop()
            pending.extend(kind.__subclasses__())
            if kind is not errors.Refused:
                self.assertNotEqual(status_of(kind), status_of(Exception), kind)
        self.assertEqual(status_of(ValueError).code, 500)

    def test_details(self) -> None:
        """The message of an error of harn's classes is shown; that of another is not."""
        self.assertIn(b"too much", problem_of(errors.BodyTooLarge("too much")).body)
        self.assertNotIn(b"secret", problem_of(ValueError("secret")).body)

    def test_headers(self) -> None:
        """Retry-After and Allow go with the statuses that want them."""
        self.assertEqual(problem_of(errors.Saturated("x", retry_after=7)).headers, b"Retry-After: 7\r\n")
        self.assertEqual(problem_of(errors.Saturated("x", retry_after=0)).headers, b"Retry-After: 1\r\n")
        self.assertEqual(problem_of(errors.MethodNotAllowed("x", ("GET",))).headers, b"Allow: GET\r\n")

    @given(st.text(max_size=2000))
    def test_any_detail(self, detail: str) -> None:
        """Any text becomes a document, printable and bounded."""
        document = problem(Status(400, "Bad request"), detail)
        self.assertLess(len(document.body), 4000)
        self.assertNotRegex(shown(detail), "[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
