"""Handlers of the quickstart: a line for each issue, on the server's log and in .harn/issues.log."""

from pathlib import Path

from harn.handlers import Context, TriggerEvent

LOG = Path(".harn/issues.log")


def should_handle(event: TriggerEvent) -> bool:
    """Return whether the sender is a person, not a bot."""
    payload = event.provider_payload["raw"] or {}
    return payload.get("sender", {}).get("type") != "Bot"


def on_issue(event: TriggerEvent, context: Context) -> dict:
    """Log the issue and its author; return its number."""
    issue = event.provider_payload.get("issue")
    if issue is None:
        line = f"{event.kind}: a synthetic event"
    else:
        line = f"{event.kind}: #{issue['number']} {issue['title']!r} by {issue['user']['login']}"
    print(f"received {line}")
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as log:
        log.write(f"{context.binding} {line}\n")
    return {"said": line, "by": context.binding}
