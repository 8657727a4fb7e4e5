"""The admin pages about generations that were adopted: their content, probation and ramps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.listener.admin_arguments import (
    parse_flag,
    parse_number,
)
from harn.listener.admin_place import AdminPlace, Door, make_admin_app
from harn.listener.interfaces import IReloadOperations
from harn.listener.request import HarnRequest
from harn.reload.interfaces import IReloader


class GenerationPages(AdminPlace):
    """What an operator may read of generations, and have done with what they left running."""

    app = make_admin_app()

    def __init__(self, door: Door, reloader: IReloader, operations: IReloadOperations) -> None:
        super().__init__(door)
        self._reloader = reloader
        self._operations = operations

    # Content

    @app.route("/admin/generations/<number>", methods=["GET"])
    async def generation(self, request: HarnRequest, number: str) -> None:
        """Show one generation with its manifest and its modules."""

        async def read(options: Mapping[str, str]) -> Any:
            wanted = parse_number({"generation": number}, "generation", None, 1)
            return await self._operations.show(wanted, parse_flag(options, "sources"))

        await self.show(request, read, options=("sources",))

    @app.route("/admin/diff", methods=["GET"])
    async def diff(self, request: HarnRequest) -> None:
        """Show what differs between two generations, by default from the first to the live one."""

        async def read(options: Mapping[str, str]) -> Any:
            old = parse_number(options, "from", None, 1)
            return await self._operations.diff(old, parse_number(options, "to", self._reloader.generation, 1))

        await self.show(request, read, options=("from", "to"))
