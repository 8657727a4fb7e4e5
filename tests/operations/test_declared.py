"""The arguments of the operations of a server: what each takes, and what it refuses."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.cli.operations import OPERATIONS
from harn.dispatch.operations import Fire, fire
from harn.errors import BackupFailed, PayloadInvalid
from harn.history.operations import (
    DiffGenerations,
    ListGenerations,
    ShowGeneration,
    diff_generations,
    list_generations,
    show_generation,
)
from harn.operations.http import Arguments, read_object, read_parameters
from harn.operations.model import Operation
from harn.operations.parameters import Duration, Parameters
from harn.operations.statuses import INTERNAL, status_of
from harn.orchestrator.operations import Recover, recover
from harn.orchestrator.record_operations import ReadEvents, read_events
from harn.reload.operations import DrainOf, ListDrains, cancel_drain, list_drains, move_drain
from harn.rollout.operations import Confirm, RampOf, abort_ramps, confirm_generation, finish_ramps

Asked = tuple[Operation[Any, Any, Any], dict[str, str], dict[str, str], bytes]
"""An operation, what the path and the query of its request hold, and the body."""


def read(asked: Asked) -> Parameters:
    """Read the parameters of a request."""
    operation, path, query, body = asked
    found: Parameters = read_parameters(operation, Arguments(path=path, query=query, body=body))
    return found


class DeclarationTests(SynchronousTestCase):
    """What is declared of every operation of a server."""

    def test_examples(self) -> None:
        """Each operation that has parameters has an example, which it can read."""
        for each in OPERATIONS:
            self.assertEqual(bool(each.example), bool(each.fields), each.name)
            read_object(each, each.example)

    def test_raised(self) -> None:
        """Each error that the docstring of an operation names is one of a status of its own."""
        for each in OPERATIONS:
            named = (each.run.__doc__ or "").count(":raises ")
            self.assertGreaterEqual(len(each.raises), named, each.name)
            for raised in each.raises:
                self.assertRegex(raised.why, r"^[A-Z].*[^.]\.$")
                self.assertTrue(status_of(raised.kind) is not INTERNAL or raised.kind is BackupFailed, each.name)


class ArgumentTests(SynchronousTestCase):
    """What each operation takes."""

    def assert_read(self, wanted: Parameters, *asked: Asked) -> None:
        """See that each of these requests asks for the same."""
        for each in asked:
            self.assertEqual(read(each), wanted, each)

    def assert_refused(self, *asked: Asked) -> None:
        """See that each of these requests is refused with what it must be."""
        for each in asked:
            self.assertIn("must ", str(self.assertRaises(PayloadInvalid, read, each)), each)

    def test_drains(self) -> None:
        """A version must be named."""
        self.assert_read(ListDrains(), (list_drains, {}, {}, b""))
        for operation in (cancel_drain, move_drain):
            self.assert_read(DrainOf(binding="gh@v1"), (operation, {}, {}, b'{"binding":"gh@v1","request_id":"1"}'))
            self.assert_refused(
                (operation, {}, {}, b""),
                (operation, {}, {}, b'{"binding":["gh@v1"]}'),
                (operation, {}, {}, b'{"trigger":"gh"}'),
            )

    def test_ramps(self) -> None:
        """A trigger may be named."""
        for operation in (finish_ramps, abort_ramps):
            self.assert_read(RampOf(), (operation, {}, {}, b""), (operation, {}, {}, b'{"trigger":null}'))
            self.assert_read(RampOf(trigger="gh"), (operation, {}, {}, b'{"trigger":"gh"}'))
            self.assert_refused((operation, {}, {}, b'{"trigger":7}'), (operation, {}, {}, b'{"trigger":""}'))

    def test_confirm(self) -> None:
        """A generation may be named, by its number, in the body."""
        self.assert_read(Confirm(), (confirm_generation, {}, {}, b""))
        self.assert_read(Confirm(generation=8), (confirm_generation, {}, {}, b'{"generation":8}'))
        self.assert_refused(
            (confirm_generation, {}, {}, b'{"generation":"8"}'),
            (confirm_generation, {}, {}, b'{"generation":0}'),
            (confirm_generation, {}, {}, b'{"trigger":"gh"}'),
            (confirm_generation, {}, {"generation": "8"}, b""),
        )

    def test_generations(self) -> None:
        """Numbers of generations are whole and positive; a diff is to the live one unless another is named."""
        self.assert_read(ListGenerations(), (list_generations, {}, {}, b""))
        self.assert_read(ListGenerations(limit=3), (list_generations, {}, {"limit": "3"}, b""))
        seven = {"generation": "7"}
        self.assert_read(ShowGeneration(generation=7, sources=True), (show_generation, seven, {"sources": "true"}, b""))
        self.assert_read(DiffGenerations(old=3, new=5), (diff_generations, {}, {"from": "3", "to": "5"}, b""))
        self.assert_read(DiffGenerations(old=3), (diff_generations, {}, {"from": "3"}, b""))
        self.assert_refused(
            *((list_generations, {}, {"limit": text}, b"") for text in ("0", "1001", "")),
            (list_generations, {}, {"after": "1"}, b""),
            *((show_generation, {"generation": text}, {}, b"") for text in ("seven", "0", "9" * 30)),
            (show_generation, seven, {"source": "true"}, b""),
            (show_generation, seven, {"sources": "perhaps"}, b""),
            *(
                (diff_generations, {}, query, b"")
                for query in ({}, {"to": "3"}, {"from": "x"}, {"from": "1", "to": "0"})
            ),
        )

    def test_events(self) -> None:
        """A page has a beginning and a length."""
        topic = {"topic": "trigger.outbox"}
        self.assert_read(ReadEvents(topic="trigger.outbox"), (read_events, topic, {}, b""))
        wanted = ReadEvents(topic="trigger.outbox", after=4, limit=1000)
        self.assert_read(wanted, (read_events, topic, {"after": "4", "limit": "1000"}, b""))
        for key, text in (("limit", "0"), ("limit", "1001"), ("limit", "x"), ("after", "-1"), ("after", "9" * 5000)):
            self.assert_refused((read_events, topic, {key: text}, b""))
        self.assert_refused((read_events, topic, {"first": "1"}, b""))

    def test_fire(self) -> None:
        """Any JSON value may be the payload."""
        path = {"trigger": "a b"}
        self.assert_read(Fire(trigger="a b", payload={"a": 1}), (fire, path, {}, b'{"payload":{"a":1}}'))
        self.assert_read(Fire(trigger="a b"), (fire, path, {}, b""), (fire, path, {}, b'{"payload":null}'))
        self.assert_refused((fire, path, {}, b'{"other":1}'), (fire, path, {"x": "1"}, b""))

    def test_recover(self) -> None:
        """An age must be given, with its unit."""
        body = b'{"envelope_age":"10m","dry_run":true}'
        self.assert_read(Recover(envelope_age=Duration.parse("10m"), dry_run=True), (recover, {}, {}, body))
        self.assert_refused(
            (recover, {}, {}, b"{}"),
            (recover, {}, {}, b'{"envelope_age":5}'),
            (recover, {}, {}, b'{"envelope_age":"5m","dry_run":"x"}'),
        )
