"""GitHub: webhooks of repositories, organizations and apps, in JSON or form encoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from harn.connectors.bodies import occurred_at, word
from harn.connectors.messages import Lifted, Message
from harn.connectors.receivers import Example, SignedProvider, dotted, header, member
from harn.connectors.signatures import HmacScheme
from harn.errors import PayloadInvalid

SIGNATURE = HmacScheme(name="github", header="X-Hub-Signature-256", prefix="sha256=")
"""No time is signed: a captured request stays valid. Source: GitHub, "Validating webhook deliveries"."""

_EVENT = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)

_COMMON = Lifted.of({"action": ("action",), "installation_id": ("installation", "id")})

# Fields of each event beside the common ones; the names are those of the body.
_FIELDS: Mapping[str, Lifted] = {
    event: Lifted.of({**_COMMON, **{name: (name,) for name in names}})
    for event, names in {
        "issues": ("issue",),
        "pull_request": ("pull_request",),
        "issue_comment": ("issue", "comment"),
        "pull_request_review": ("pull_request", "review"),
        "push": ("commits", "distinct_size"),
        "workflow_run": ("workflow_run",),
        "deployment_status": ("deployment_status", "deployment"),
        "check_run": ("check_run",),
    }.items()
}


@lru_cache(maxsize=256)
def _is_event(text: str) -> bool:
    return _EVENT.fullmatch(text) is not None


class _Kind:
    """``<X-GitHub-Event>.<action>``, or the bare event where the body has no action."""

    put = dotted(header("X-GitHub-Event"), member("action")).put

    def __call__(self, message: Message) -> str:
        """
        Return the kind of a message.

        :raises PayloadInvalid: it is not a webhook of GitHub.
        """
        event = message.headers.get("x-github-event")
        if event is None or not _is_event(event):
            raise PayloadInvalid("the header X-GitHub-Event is missing or malformed; is this a webhook of GitHub?")
        if message.body_format == "fields":
            raise PayloadInvalid("the form has no field payload, which holds the event")
        action = word(message.document.member("action"))
        return event if action is None else f"{event}.{action}"


def _occurred_at(message: Message) -> str | None:
    found = message.document.member("timestamp")
    return None if found is None else occurred_at(found)  # a number is ignored


GITHUB = SignedProvider(
    provider="github",
    home=__name__,
    scheme=SIGNATURE,
    kind=_Kind(),
    identity=header("X-GitHub-Delivery"),
    occurred_at=_occurred_at,
    fields=lambda message: _FIELDS.get(message.headers.get("x-github-event", ""), _COMMON),
    headers={"event": "x-github-event", "delivery_id": "x-github-delivery"},
    example=Example(
        body=b'{"action": "opened", "issue": {"number": 42, "title": "The greeting is gone after a reload", "state": '
        b'"open", "user": {"login": "octocat", "type": "User"}, "body": "Expected: hello. Got: nothing."}, '
        b'"repository": {"name": "hello-world", "full_name": "octo-org/hello-world"}, '
        b'"sender": {"login": "octocat", "type": "User"}}',
        headers={
            "Content-Type": "application/json",
            "X-GitHub-Event": "issues",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        },
    ),
)
