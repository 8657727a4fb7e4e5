"""Validation of the path of a trigger's route."""

from __future__ import annotations

import re

# RFC 3986, "pchar", without percent-encoding: the characters that every client and proxy passes on unchanged.
_SEGMENTS = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*", re.ASCII)
_LONGEST = 1024

_OURS = {
    "/": "the root",
    "/health": "the health check",
    "/healthz": "the health check",
    "/readyz": "the readiness check",
    "/metrics": "the metrics",
}
_OURS_AND_BELOW = {"/admin": "the admin API", "/console": "the console", "/mcp": "the MCP server"}


def default_path(trigger_id: str) -> str:
    """Return the default path of a trigger."""
    return f"/triggers/{trigger_id}"


def fault_of_path(path: str) -> tuple[str, str] | None:
    """Return why requests could not reach ``path`` reliably, and what to do; None when they can."""
    if not path.startswith("/"):
        return "must start with /", f'for example "/{path}"' if _SEGMENTS.fullmatch("/" + path) else ""
    if "?" in path or "#" in path:
        return "must have no query and no fragment", "routes match the path alone"
    if _SEGMENTS.fullmatch(path) is None:
        wrong = next(character for character in path if _SEGMENTS.fullmatch("/" + character) is None)
        what = "a %" if wrong == "%" else f"U+{ord(wrong):04X}"
        return f"has {what}", "use letters, digits, / and any of - . _ ~ ! $ & ' ( ) * + , ; = : @"
    if "//" in path or any(segment in (".", "..") for segment in path.split("/")):
        return "has an empty, . or .. segment, which clients and proxies fold away", "write the path without it"
    if len(path) > _LONGEST:
        return f"has {len(path)} characters", f"{_LONGEST} is the most"
    return _fault_of_owner(path)


def _fault_of_owner(path: str) -> tuple[str, str] | None:
    folded = path.rstrip("/") or "/"
    owner = _OURS.get(folded) or _OURS_AND_BELOW.get("/" + folded.split("/", 2)[1])
    if owner is None:
        return None
    return f'"{path}" is a path of harn itself ({owner})', "choose another, for example one under /hooks/"
