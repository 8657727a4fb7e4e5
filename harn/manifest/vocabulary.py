"""
Words of a ``[[triggers]]`` table: valid ids, events and paths, and words that are reserved and not supported yet.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from harn.manifest.diagnostics import quote

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
KINDS = ("webhook", "a2a-push")
"""Kinds of trigger that have a route: the kinds that this version supports."""
LATER_KINDS = ("cron", "poll", "stream", "predicate")
LATER_PROVIDERS = (
    *("linear", "notion", "cron", "kafka", "nats", "pulsar", "postgres-cdc", "email", "websocket"),
    *("github", "webhook", "a2a-push"),
)
LATER_SCHEMES = ("a2a", "worker", "persona")
"""Schemes of handlers that are reserved, and not supported yet."""
DEFAULTS: dict[str, Any] = {
    "autonomy_tier": "act_auto",
    "tier": "act_auto",
    "priority": "normal",
    "allow_cleartext": False,
    "dlq_alerts": [],
    "dlq-alerts": [],
}
"""Keys that are accepted with these values only, which change nothing."""
LATER = frozenset(DEFAULTS) | {
    *("when_budget", "budget", "concurrency", "throttle", "rate_limit", "debounce", "singleton", "batch", "window"),
    *("sources", "schedule", "timezone", "catchup_mode", "poll", "monitor", "replay_grace_secs"),
    *("topic", "topics", "subject", "subjects", "slot", "address", "domain", "routing", "url"),
}
"""Reserved keys that this version does not support: refused, since ignoring them would be worse."""


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


def fault_of_id(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a trigger's id, and what to write; None when it is valid."""
    if len(text) > 200:
        return f"has {len(text)} characters", "200 is the most"
    if " " in text or not text.isprintable():
        return "has white space or characters that do not print", "use letters, digits, - _ and ."
    if "/" in text or text.startswith("-"):
        return "must not have a / nor start with -", "use letters, digits, - _ and ."
    if re.search(r"@v[0-9]+\Z", text):
        return "must not end like a version (@v and digits)", "harn adds the version itself, as in gh@v2"
    return None


@lru_cache(maxsize=4096)
def fault_of_event(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a kind of event or a pattern of kinds, and what to write; None when it is valid."""
    if " " in text or not text.isprintable():
        return "has white space or characters that do not print", "write one kind of event"
    if "*" not in text.removesuffix(".*") and text != ".*":
        return None
    if text == "*":
        return 'must be a pattern, got "*"', "leave events empty to match every event"
    return f"{quote(text)}: * stands only at the end, after a dot", "write for example issues.*"
