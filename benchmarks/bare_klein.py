"""The yardstick: one literal Klein route that answers at once. ``python -m benchmarks.bare_klein`` prints its URL."""

# twisted.web is not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site

app = Klein()


class QuietSite(Site):
    """A site without an access log, which would cost a tenth."""

    def log(self, request: Any) -> None:
        """Do nothing."""


@app.route("/hooks/t0", methods=["POST"])
def hook(request: Any) -> bytes:
    """Answer 202, and do nothing else."""
    request.setResponseCode(202)
    return b""


def main() -> None:
    """Serve on a free port until a signal ends the process."""
    tcp: Any = reactor
    site = QuietSite(app.resource())
    site.displayTracebacks = False
    port = tcp.listenTCP(0, site, interface="127.0.0.1", backlog=1024)
    print(f"http://127.0.0.1:{port.getHost().port}", flush=True)
    tcp.run()


if __name__ == "__main__":
    main()
