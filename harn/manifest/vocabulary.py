"""
Words of a ``[[triggers]]`` table: valid ids, events, paths and JMESPath expressions; words that are reserved and not
supported yet; and the provider to write for a sender that has none of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from harn.manifest.diagnostics import nearest, quote, suggest

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
ROUTED = ("webhook", "a2a-push")
"""Kinds of trigger that have a route."""
KINDS = (*ROUTED, "cron", "poll")
"""Kinds of trigger that this version supports."""
ROUTE_KEYS = ("path", "allow_from", "client_ca", "respond", "respond_within")
"""Keys that count only for requests."""
LATER_KINDS = ("stream", "predicate")
LATER_PROVIDERS = (
    *("kafka", "nats", "pulsar", "postgres-cdc", "email", "websocket"),
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
    *("sources", "monitor", "replay_grace_secs"),
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
    """Return the fault of a trigger's id, and a hint; None when it is valid."""
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
    """Return the fault of a kind of event or a pattern of kinds, and a hint; None when it is valid."""
    if " " in text or not text.isprintable():
        return "has white space or characters that do not print", "write one kind of event"
    if "*" not in text.removesuffix(".*") and text != ".*":
        return None
    if text == "*":
        return 'must be a pattern, got "*"', "leave events empty to match every event"
    return f"{quote(text)}: * stands only at the end, after a dot", "write for example issues.*"


_FUNCTIONS: dict[str, Any] = Functions.FUNCTION_TABLE


@lru_cache(maxsize=16_384)
def fault_of_expression(text: str) -> str | None:
    """Return the error in ``text`` and where it is; None when it is JMESPath and calls only known functions."""
    if not text.strip():
        return "it is empty"
    try:
        tree: Any = jmespath.compile(text).parsed
    except JMESPathError as error:
        return _explain(text, error)
    except RecursionError:
        return "it is nested too deep"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # The library lets some of its own errors through, for example for a literal that is not JSON.
        return str(error).partition("\n")[0]
    return _unknown_function(tree)


def _explain(text: str, error: JMESPathError) -> str:
    position = getattr(error, "lex_position", None)
    said = str(getattr(error, "message", "") or getattr(error, "msg", "") or error).partition("\n")[0].rstrip(":")
    if position is None:
        return said
    if position >= len(text) or getattr(error, "token_value", None) is None:
        return f"it ends too early, after {quote(text[-20:])}"
    rest = text[position:]
    return f"at character {position + 1}, before {quote(rest[:20])}: {said}{_hint(rest)}"


def _hint(rest: str) -> str:
    """Return the right form for two common mistakes."""
    if rest.startswith("="):
        return "; to compare, write =="
    number = re.match(r"-?\d+(\.\d+)?", rest)
    return f"; write a number between backticks: `{number.group()}`" if number else ""


def _unknown_function(tree: Any) -> str | None:
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if node["type"] == "function_expression" and node["value"] not in _FUNCTIONS:
            return f"there is no function {quote(node['value'])}; {suggest(node['value'], _FUNCTIONS)}"
        nodes.extend(child for child in node["children"] if isinstance(child, dict))
    return None


# Senders whose requests a provider of another name takes, by the signature that their documentation says.
_SAME_AS: dict[str, tuple[str, ...]] = {
    "standard": ("svix", "clerk", "resend", "openai", "supabase", "polar", "render", "brex", "replicate", "liveblocks"),
    "hmac": ("jira", "typeform", "calendly", "hubspot", "intercom", "dropbox", "box", "trello", "asana", "contentful")
    + ("square", "paddle", "docusign", "mailchimp", "woocommerce", "webflow", "vercel", "heroku", "zoom", "circleci"),
    "token": ("telegram", "alertmanager", "argocd", "grafana", "uptimekuma"),
    "basic": ("postmark", "sparkpost", "jenkins"),
    "bitbucket": ("atlassian", "stash"),
    "gitea": ("gogs",),
    "forgejo": ("codeberg",),
    "cloudevents": ("knative", "eventgrid", "harbor"),
}
_MEANT = {sender: provider for provider, senders in _SAME_AS.items() for sender in senders}


def instead(sender: str, known: Iterable[str]) -> str:
    """
    Return the right name for a sender that is not a provider: a near name, or the provider of its way of signing.

    :param known: the providers of this installation.
    """
    names = sorted(known)
    meant = _MEANT.get(sender.lower().replace("-", "").replace("_", ""))
    if meant in names:
        return f"write provider = {quote(meant)}, which takes what {sender} sends"
    if nearest(sender, names) is not None:
        return suggest(sender, names)
    ways = [
        (name, text)
        for name, text in (
            ("standard", "for Standard Webhooks (webhook-signature) or Svix"),
            ("hmac", "for any other HMAC in a header"),
            ("token", "for a token in a header or the query"),
            ("basic", "for user and password"),
        )
        if name in names
    ]
    if not ways:
        return suggest(sender, names)
    said = ", ".join(f"{quote(name)} {text}" for name, text in ways)
    return f"by how it signs, write provider = {said}; installed: {', '.join(names)}"
