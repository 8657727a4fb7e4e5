"""Forward events of GitHub to a Slack channel."""

import json
import time
import urllib.error
import urllib.request

from harn.handlers import Context, Reject, RetryAfter, TriggerEvent


def forward(event: TriggerEvent, context: Context) -> dict:
    """Post one line to the channel. A plain ``def``: it runs in a thread, so that it may block."""
    url = context.secret_sync("slack/webhook-url")
    text = line_of(event)
    post(url, {"text": text}, timeout=max(1.0, context.deadline - time.time()))
    return {"text": text}


def line_of(event: TriggerEvent) -> str:
    """Return the line for the channel; text of others is escaped for Slack, so that it cannot mention anyone."""
    body = event.provider_payload["raw"]
    what, where = ("issue", body["issue"]) if "issue" in body else ("release", body["release"])
    title = where.get("title") or where.get("name") or where.get("tag_name") or ""
    return f"New {what} in {escaped(body['repository']['full_name'])}: <{where['html_url']}|{escaped(title)}>"


def escaped(text: str) -> str:
    """Return a text that Slack shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(url: str, message: dict, timeout: float) -> None:
    """
    Post a message to Slack.

    :raises RetryAfter: there were too many; it is sent again when Slack says.
    :raises Reject: Slack will never take it (the URL was revoked, the channel is archived); to the dead letters.
    :raises OSError: Slack cannot be reached, or fails; the trigger's retries are for that.
    """
    body = json.dumps(message).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            return
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(200).decode("utf-8", "replace")
        if error.code == 429:
            raise RetryAfter(float(error.headers.get("Retry-After", "30")), "Slack asks to wait") from None
        if error.code < 500:
            raise Reject(f"Slack answered {error.code}: {said}") from None
        raise
