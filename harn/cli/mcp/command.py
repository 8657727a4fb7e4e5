"""The command itself: its options, and what it says where the SDK is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from harn.cli.operations import OPERATIONS
from harn.cli.options import with_place
from harn.cli.place import ServerTarget, with_server
from harn.errors import HarnError
from harn.options.readers import read_address

NEEDED = ("mcp", "anyio", "starlette", "uvicorn")
DEFAULT_HOST = "127.0.0.1"


class SdkMissing(HarnError):
    """The SDK of the Model Context Protocol is not installed."""


class Address(click.ParamType[Any]):
    """``HOST:PORT``, or ``PORT`` for one on loopback."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        if not isinstance(value, str):
            return value
        try:
            return read_address(f"{DEFAULT_HOST}:{value.removeprefix(':')}" if value.strip(":").isdecimal() else value)
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


@click.command()
@with_place
@with_server
@click.option(
    "--http",
    "address",
    type=Address(),
    metavar="HOST:PORT",
    help="Serve streamable HTTP at /mcp on this address, or on this PORT of 127.0.0.1; port 0 picks a free one.",
)
@click.option(
    "--allowed-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="With --http: accept this Host and Origin, too, for example the name that a proxy has; may be repeated.",
)
@click.option("--read-only", is_flag=True, help="Offer only tools that change nothing.")
def mcp(target: ServerTarget, address: tuple[str, int] | None, names: tuple[str, ...], read_only: bool) -> None:
    """
    Serve the operations of a server to an agent, as tools of the Model Context Protocol, and its manifest, generations
    and deliveries as resources.

    Speaks on standard input and output, and uses the key that every command finds. With --http each request must show a
    key of the admin API as `Authorization: Bearer KEY`. The server that is asked may be started later, or restart.
    """
    check_installed()
    from harn.cli.mcp.server import McpService, serve_stdio
    from harn.cli.mcp.tools import tools_of
    from harn.cli.mcp.web import WILDCARDS, serve_http

    if address is None and names:
        raise click.UsageError("--allowed-host is for --http; give both, or neither")
    if address is not None and address[0] in WILDCARDS and not names:
        raise click.UsageError(
            f"--http {address[0]} is every address of this machine, so the name that clients use is not known; "
            "give it with --allowed-host NAME"
        )
    service = McpService(target=target, tools=tools_of(OPERATIONS, read_only=read_only))
    if address is not None:
        serve_http(service, address, names)
        return
    import anyio

    try:
        anyio.run(serve_stdio, service)
    except ExceptionGroup as errors:
        if errors.split(BrokenPipeError)[1] is None:  # the client has gone, as the reader of other output may
            raise BrokenPipeError from errors
        raise


def check_installed() -> None:
    """
    Make sure that the SDK is there.

    :raises SdkMissing: it is not; says how to install it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SdkMissing(f"harn mcp needs the MCP SDK ({', '.join(missing)} missing); pip install 'harn[mcp]'")
