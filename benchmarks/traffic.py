"""The request of every load: a signed push-like delivery of GitHub with a body of 4 KB."""

from __future__ import annotations

import json

from harn.testing.server import GITHUB_SECRET
from harn.testing.signers import github_headers

SIZE = 4096
"""Bytes of the body."""

EVENT = "issues"
_DELIVERY = "@delivery@"


def body(size: int = SIZE) -> bytes:
    """Return a body of ``size`` bytes, the same every time."""
    document = {
        "action": "opened",
        "issue": {"id": 1891047319, "number": 42, "title": "The greeting is gone", "user": {"login": "octocat"}},
        "repository": {"id": 1296269, "full_name": "octo-org/hello-world", "private": False},
        "commits": [
            {
                "id": f"{number:040x}",
                "message": f"Edit number {number}: a line of text",
                "author": {"name": "Octo Cat", "email": "octo@example.org"},
                "added": [f"src/module_{number}.py"],
                "removed": [],
                "modified": ["README.md"],
            }
            for number in range(14)
        ],
        "padding": "",
    }
    missing = size - len(json.dumps(document))
    document["padding"] = "x" * missing
    return json.dumps(document).encode()


def headers(content: bytes) -> dict[str, str]:
    """Return the signed headers of a delivery; each request puts its own number in place of its id."""
    return github_headers(GITHUB_SECRET, content, EVENT, _DELIVERY)


def request_parts(target: str, host: str) -> tuple[bytes, bytes]:
    """Return the bytes of a request before and after its delivery's id."""
    content = body()
    named = {"Host": host, **headers(content), "Content-Length": str(len(content))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    before, _, after = f"POST {target} HTTP/1.1\r\n{lines}\r\n".partition(_DELIVERY)
    return before.encode(), after.encode() + content
