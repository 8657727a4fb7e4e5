"""Every key of a ``[[triggers]]`` table: supported ones, and ones that are reserved and not supported yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from harn.manifest.alerts import AlertTables
from harn.manifest.declared import fields_of
from harn.manifest.diagnostics import quote
from harn.manifest.fields import Choice, Duration, Expression, Field, Function, Integer, Text, Texts
from harn.manifest.model import CircuitSpec, RetrySpec, RolloutSpec
from harn.manifest.routes import fault_of_path
from harn.model.references import fault_of_secret

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
def _fault_of_event(text: str) -> tuple[str, str] | None:
    if " " in text or not text.isprintable():
        return "has white space or characters that do not print", "write one kind of event"
    if "*" not in text.removesuffix(".*") and text != ".*":
        return None
    if text == "*":
        return 'must be a pattern, got "*"', "leave events empty to match every event"
    return f"{quote(text)}: * stands only at the end, after a dot", "write for example issues.*"


TRIGGER: Mapping[str, Field] = {
    "id": Text("The trigger's name: unique, and the same from one version of the manifest to the next.", fault_of_id),
    "kind": Choice("How events arrive.", KINDS),
    "provider": Text("The sender: a provider of this installation."),
    "path": Text("The route, matched exactly; /triggers/<id> by default.", fault_of_path),
    "handler": Function(
        "The Python function that handles events, as module:function; or another destination, as scheme://...",
        LATER_SCHEMES,
    ),
    "when": Function("A Python function that decides first, in the same version, whether to handle the event."),
    "filter": Expression("JMESPath over {event: ...}; an event is kept when the value is truthy."),
    "dedupe_key": Expression("JMESPath over {event: ...}; events with a repeated key are dropped."),
    "handler_secrets": Texts(
        "The secrets that the handler may fetch, as namespace/name; by default any that resolves.",
        Text("", fault_of_secret),
    ),
    "timeout": Duration('How long the handler may run; "30s" by default.'),
    "max_outstanding": Integer(
        "How many of its handlers run at once; without it only the server's limit holds.", 1, 100_000
    ),
    "weight": Integer("How many of its deliveries begin in its turn among the triggers; 1 by default.", 1, 1000),
    "alerts": AlertTables("Messages about this trigger when something is wrong with it."),
}
MATCH: Mapping[str, Field] = {
    "events": Texts("Kinds of event, such as issues.opened or issues.*; empty for all.", Text("", _fault_of_event)),
    "path": Text("The same as the trigger's path.", fault_of_path),
}
RETRY: Mapping[str, Field] = fields_of(RetrySpec)
ROLLOUT: Mapping[str, Field] = fields_of(RolloutSpec)
CIRCUIT: Mapping[str, Field] = fields_of(CircuitSpec)
TABLES: Mapping[str, str] = {
    "match": "The events that this trigger accepts.",
    "retry": "Retries after a failed attempt.",
    "circuit": "When the destination is given time to recover from failures; never by default for a local function.",
    "rollout": "Gradual rollout of a change of this trigger; all at once by default.",
    "secrets": "Name of a secret -> namespace/name, or an array of them to try in order.",
}
KNOWN = frozenset(TRIGGER) | frozenset(TABLES)
