"""Handlers of the Kubernetes example: a line for each issue in the pod's log."""

from harn.handlers import Context, TriggerEvent


def on_issue(event: TriggerEvent, context: Context) -> dict:
    """Log the issue and return its number."""
    issue = event.provider_payload["raw"]["issue"]
    context.log.info(f"{event.kind}: #{issue['number']} {issue['title']!r}")
    return {"number": issue["number"]}
