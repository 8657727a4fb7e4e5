"""
The MCP server over streamable HTTP: each request shows a key of the admin API, with which the harn server is asked.

``Host`` and ``Origin`` are checked by the SDK, against DNS rebinding.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harn.auth.credentials import Credentials
from harn.cli.client import OperationRefused, ask
from harn.cli.mcp.server import McpService
from harn.cli.output import warn
from harn.cli.place import ServerTarget
from harn.errors import HarnError
from harn.reload.operations import ShowLive, show_live

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette

PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with
REFUSED = (401, 403)


class KeyVerifier(Struct, frozen=True, kw_only=True):
    """Checks the bearer keys of requests by asking the harn server with them."""

    target: ServerTarget

    async def verify_token(self, token: str) -> AccessToken | None:
        """
        Return the key as the SDK holds it, None if the server refuses it.

        A server that does not answer refuses nothing: then each tool answers why it cannot be asked.
        """
        from anyio.to_thread import run_sync
        from mcp.server.auth.provider import AccessToken

        if not await run_sync(self.accepts, token, abandon_on_cancel=True):
            return None
        return AccessToken(token=token, client_id="key", scopes=[])

    def accepts(self, token: str) -> bool:
        """Return whether the server accepts a key, or cannot be asked. Blocks."""
        if not (token.isascii() and token.isprintable()):
            return False  # no header has it
        try:
            ask(self.target.client_showing(Credentials(keys=(token.encode("ascii"),))), show_live, ShowLive())
        except OperationRefused as refused:
            return refused.status not in REFUSED
        except HarnError:
            return True
        return True


def security(host: str, names: Sequence[str]) -> TransportSecuritySettings:
    """
    Return which ``Host`` and ``Origin`` headers are accepted.

    :param host: the address that is listened on.
    :param names: further names of it, each with a port if the URL has one that differs.
    """
    from mcp.server.transport_security import TransportSecuritySettings

    hosts = dict.fromkeys(_as_header(each) for each in (*(LOOPBACK if host in LOOPBACK else (host,)), *names))
    return TransportSecuritySettings(
        allowed_hosts=list(_patterns(hosts)),
        allowed_origins=[f"{scheme}://{each}" for scheme in ("http", "https") for each in _patterns(hosts)],
    )


def _as_header(name: str) -> str:
    """Return a host in the form of the header: an IPv6 address in brackets."""
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _patterns(hosts: Iterable[str]) -> Iterable[str]:
    for each in hosts:
        yield each
        if not each.rpartition(":")[2].isdecimal():
            yield f"{each}:*"


def make_app(service: McpService, host: str, names: Sequence[str]) -> Starlette:
    """Return the application that answers at `PATH`; see `security`."""
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
    from starlette.middleware.authentication import AuthenticationMiddleware

    verifier = KeyVerifier(target=service.target)
    app = service.server().streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,  # a key counts for its request, not for a session
        transport_security=security(host, names),
        token_verifier=verifier,
    )
    app.add_middleware(AuthenticationMiddleware, backend=BearerAuthBackend(verifier))
    return app


def serve_http(service: McpService, address: tuple[str, int], names: Sequence[str]) -> None:
    """
    Serve until SIGINT or SIGTERM.

    :param address: host and port; port 0 picks a free one.
    :raises OSError: the address cannot be listened on.
    """
    import uvicorn

    app = make_app(service, address[0], names)
    with socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as listening:
        port = listening.getsockname()[1]
        warn(f"MCP server ready on http://{_as_header(address[0])}:{port}{PATH}")
        config: Any = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])
