"""The arguments of the operations of a server: what each takes, and what it refuses."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.errors import PayloadInvalid
from harn.operations.model import Operation
from harn.operations.parameters import Parameters
from harn.operations.requests import Arguments, read_parameters
from harn.reload.drain_operations import DrainOf, ListDrains, cancel_drain, list_drains, move_drain
from harn.rollout.operations import Confirm, RampOf, abort_ramps, confirm_generation, finish_ramps

Asked = tuple[Operation[Any, Any, Any], dict[str, str], dict[str, str], bytes]
"""An operation, what the path and the query of its request hold, and the body."""


def read(asked: Asked) -> Parameters:
    """Read the parameters of a request."""
    operation, path, query, body = asked
    found: Parameters = read_parameters(operation, Arguments(path=path, query=query, body=body))
    return found


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
