"""The admin pages about triggers, events and deliveries."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from harn.history.recorded import HISTORY, LONGEST_HISTORY
from harn.listener.admin_arguments import parse_flag, parse_number, parse_seconds
from harn.listener.admin_place import AdminPlace, Door, make_admin_app
from harn.listener.interfaces import IOperations
from harn.listener.request import HarnRequest
from harn.observability.audit import Acting

_MOST_RECORDS = 1000


class OperationPages(AdminPlace):
    """What an operator may read of a server, and have it do, beside reloading."""

    app = make_admin_app()

    def __init__(self, door: Door, operations: IOperations) -> None:
        super().__init__(door)
        self._operations = operations

    # Reading

    @app.route("/admin/generations", methods=["GET"])
    async def generations(self, request: HarnRequest) -> None:
        """Show the generations that served."""

        async def read(options: Mapping[str, str]) -> Any:
            return await self._operations.generations(parse_number(options, "limit", HISTORY, 1, LONGEST_HISTORY))

        await self.show(request, read, "generations", ("limit",))

    @app.route("/admin/bindings", methods=["GET"])
    async def bindings(self, request: HarnRequest) -> None:
        """Show every live or draining version."""
        await self.show(request, lambda _: self._operations.bindings(), "bindings")

    @app.route("/admin/inspect", methods=["GET"])
    async def inspect(self, request: HarnRequest) -> None:
        """Show the whole state."""
        await self.show(request, lambda _: self._operations.inspect())

    @app.route("/admin/events/<topic>", methods=["GET"])
    async def events(self, request: HarnRequest, topic: str) -> None:
        """Show records of a topic."""

        async def read(options: Mapping[str, str]) -> Any:
            after, limit = parse_number(options, "after", 0, 0), parse_number(options, "limit", 100, 1, _MOST_RECORDS)
            page = await self._operations.events(topic, after, limit)
            records = [
                {
                    "number": record.number,
                    "kind": record.kind,
                    "payload": record.payload,
                    "headers": record.headers,
                    "occurred_at": record.occurred_at,
                }
                for record in page.records
            ]
            return {"topic": page.topic, "records": records, "latest": page.latest}

        await self.show(request, read, options=("after", "limit"))

    # Acting

    @app.route("/admin/fire/<trigger>", methods=["POST"])
    async def fire(self, request: HarnRequest, trigger: str) -> None:
        """Make up an event."""
        operations = self._operations
        acting = Acting(name="fire", counts=lambda _: {"fired": 1}, about={"trigger": trigger})
        await self.act(request, acting, lambda _, body: operations.fire(trigger, body.get("payload")), ("payload",))

    @app.route("/admin/recover", methods=["POST"])
    async def recover(self, request: HarnRequest) -> None:
        """Go on with stranded deliveries, or list them."""

        def recover(actor: str, body: Mapping[str, Any]) -> Awaitable[Any]:
            return self._operations.recover(parse_seconds(body, "envelope_age"), parse_flag(body, "dry_run"))

        def counts(result: Mapping[str, Any]) -> Mapping[str, int]:
            return {} if result.get("dry_run") else {"recovered": result.get("recovered", 0)}

        await self.act(request, Acting(name="recover", counts=counts), recover, ("envelope_age", "dry_run"))
