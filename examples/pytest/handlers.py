"""Handlers that a team might have: a label for urgent issues, and a deploy for pushes to the main branch."""

from harn.handlers import Context, Reject, RetryAfter, TriggerEvent

BUSY: set[str] = set()
"""Repositories whose deploy runs."""


def is_person(event: TriggerEvent) -> bool:
    """Return whether the sender is a person, not a bot."""
    return event.provider_payload["raw"]["sender"]["type"] != "Bot"


async def on_event(event: TriggerEvent, context: Context) -> dict:
    """Handle an issue, or a push."""
    payload = event.provider_payload
    if event.kind == "push":
        return deploy(payload["raw"], context)
    issue = payload["issue"]
    if issue is None:
        raise Reject("an issue event without an issue")
    token = await context.secret("github/token")
    label = "urgent" if "outage" in issue["title"].lower() else "triage"
    context.log.info("labelled", number=issue["number"], label=label, signed_in=bool(token))
    return {"number": issue["number"], "label": label}


def deploy(push: dict, context: Context) -> dict:
    """Return the deploy of a push to the main branch; one of a repository runs at a time."""
    repository = push["repository"]["full_name"]
    if push["ref"] != f"refs/heads/{push['repository']['default_branch']}":
        return {"deployed": None}
    if repository in BUSY:
        raise RetryAfter(30, f"{repository} is being deployed")
    return {"deployed": push["after"], "attempt": context.attempt}
