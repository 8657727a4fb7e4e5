"""GitLab: webhooks of projects and groups, and system hooks; with a secret token, or signed."""

from __future__ import annotations

from harn.connectors.credentials import SignedOrToken, TokenScheme
from harn.connectors.messages import First
from harn.connectors.receivers import Example, SignedProvider, always, dotted, first_of, header, member

SIGNATURE = SignedOrToken(name="gitlab", token=TokenScheme(header="X-Gitlab-Token"))
"""
Source: GitLab, "Webhooks", "Validate payloads": a secret token, or a signing token as Standard Webhooks defines it.
"""

_KIND = dotted(member("object_kind"), member("object_attributes", "action"))
_SYSTEM: First = first_of(member("event_name"), member("event_type"))

GITLAB = SignedProvider(
    provider="gitlab",
    home=__name__,
    scheme=SIGNATURE,
    secrets=("signing_secret", "token"),
    any_secret=True,
    kind=lambda message: _KIND(message) or _SYSTEM(message),
    # X-Gitlab-Event-UUID is shared by events that a webhook caused, so it identifies none.
    identity=first_of(header("webhook-id"), header("Idempotency-Key")),
    fields=always(
        object_attributes=("object_attributes",),
        user=("user",),
        project=("project",),
        project_id=("project_id",),
        ref=("ref",),
        commits=("commits",),
        changes=("changes",),
        labels=("labels",),
    ),
    headers={"gitlab_event": "x-gitlab-event", "instance": "x-gitlab-instance", "event_uuid": "x-gitlab-event-uuid"},
    example=Example(
        body=b'{"object_kind": "issue", "event_type": "issue", "user": {"username": "root"}, "project": {"id": 1,'
        b' "path_with_namespace": "a/b"}, "object_attributes": {"iid": 23, "title": "t", "action": "open"}}',
        headers={"Content-Type": "application/json", "X-Gitlab-Event": "Issue Hook"},
    ),
)
