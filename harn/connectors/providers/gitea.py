"""Gitea, and Forgejo (so Codeberg, too): webhooks of repositories, organizations and the whole instance."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, always, dotted, header, member
from harn.connectors.signatures import HmacScheme


def forge(provider: str, home: str, name: str) -> SignedProvider:
    """
    Declare a forge of this family.

    :param name: as the names of its headers have it, for example ``Gitea``.

    Source: Gitea, "Webhooks", and Forgejo, "Webhooks". No time is signed: a captured request stays valid.
    """
    return SignedProvider(
        provider=provider,
        home=home,
        scheme=HmacScheme(name=provider, header=f"X-{name}-Signature"),
        kind=dotted(header(f"X-{name}-Event"), member("action")),
        identity=header(f"X-{name}-Delivery"),
        fields=always(
            action=("action",),
            repository=("repository",),
            sender=("sender",),
            ref=("ref",),
            commits=("commits",),
            issue=("issue",),
            comment=("comment",),
            pull_request=("pull_request",),
            release=("release",),
        ),
        headers={"event_type": f"x-{name.lower()}-event-type", "delivery_id": f"x-{name.lower()}-delivery"},
        example=Example(
            body=b'{"action": "opened", "number": 1, "issue": {"number": 1, "title": "t"}, "repository":'
            b' {"full_name": "a/b"}, "sender": {"login": "root"}}',
            headers={
                "Content-Type": "application/json",
                f"X-{name}-Event": "issues",
                f"X-{name}-Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473",
            },
        ),
    )


GITEA = forge("gitea", __name__, "Gitea")
FORGEJO = forge("forgejo", __name__, "Forgejo")
