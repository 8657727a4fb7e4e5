"""Bitbucket, Cloud and Data Center: webhooks of repositories, whose kinds are event keys such as ``repo:push``."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, always, first_of, header, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="bitbucket", header="X-Hub-Signature", prefix="sha256=")
"""No time is signed: a captured request stays valid. Source: Bitbucket, "Manage webhooks", "Secure webhooks"."""

BITBUCKET = SignedProvider(
    provider="bitbucket",
    home=__name__,
    scheme=SIGNATURE,
    kind=header("X-Event-Key"),
    # Of the Cloud, and of a Data Center.
    identity=first_of(header("X-Request-UUID"), header("X-Request-Id")),
    occurred_at=member("date"),
    fields=always(
        actor=("actor",),
        repository=("repository",),
        push=("push",),
        pullrequest=("pullrequest",),
        pull_request=("pullRequest",),
        issue=("issue",),
        comment=("comment",),
        changes=("changes",),
    ),
    headers={"hook_uuid": "x-hook-uuid", "attempt_number": "x-attempt-number"},
    example=Example(
        body=b'{"actor": {"display_name": "Emma"}, "repository": {"full_name": "a/b"}, "push": {"changes": []}}',
        headers={
            "Content-Type": "application/json",
            "X-Event-Key": "repo:push",
            "X-Request-UUID": "e7df1a2b-4e0a-4a0b-9d2e-000000000001",
        },
    ),
)
