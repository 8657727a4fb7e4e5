"""The URL of a request as its sender wrote it, which a proxy may have changed on the way."""

from __future__ import annotations

from harn.model.exchange import InboundRequest

_PORTS = {"https": "443", "http": "80"}


def urls_of(request: InboundRequest, configured: str | None = None) -> tuple[str, ...]:
    """
    Return what the sender may have called the URL, the likeliest first.

    :param configured: the URL as it is entered at the sender, whose query does not count; None: it is made of ``Host``,
        for HTTPS and for HTTP, with and without a port.
    """
    query = f"?{request.query}" if request.query else ""
    if configured is not None:
        return (configured.partition("?")[0] + query,)
    host = request.headers.get("host", "")
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    return tuple(
        f"{scheme}://{authority}{request.path}{query}"
        for scheme, default in _PORTS.items()
        for authority in dict.fromkeys((host, bare, f"{bare}:{default}"))
    )
