"""
Requests as senders post them, by provider and kind: the fields that handlers use, named and nested as in real ones.

Sources: GitHub, "Webhook events and payloads"; Slack, "Events API". Other kinds come from the provider's own example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.connectors.messages import Example
from harn.wire import canonical_json

_USER = {"login": "octocat", "id": 583231, "type": "User", "site_admin": False}
_REPOSITORY = {
    "id": 1296269,
    "name": "hello-world",
    "full_name": "octo-org/hello-world",
    "private": False,
    "owner": {"login": "octo-org", "id": 6811672, "type": "Organization"},
    "html_url": "https://github.com/octo-org/hello-world",
    "clone_url": "https://github.com/octo-org/hello-world.git",
    "default_branch": "main",
}
_BASE = {"repository": _REPOSITORY, "sender": _USER}
_ISSUE = {
    "id": 1891047319,
    "number": 42,
    "title": "The greeting is gone after a reload",
    "html_url": "https://github.com/octo-org/hello-world/issues/42",
    "user": _USER,
    "labels": [{"id": 208045946, "name": "bug", "color": "d73a4a", "default": True}],
    "state": "open",
    "locked": False,
    "assignees": [],
    "milestone": None,
    "comments": 0,
    "created_at": "2026-11-20T09:14:03Z",
    "updated_at": "2026-11-20T09:14:03Z",
    "closed_at": None,
    "author_association": "CONTRIBUTOR",
    "body": "Expected: hello. Got: nothing.",
}
_PULL_REQUEST = {
    "id": 2034567890,
    "number": 43,
    "title": "Bring the greeting back",
    "html_url": "https://github.com/octo-org/hello-world/pull/43",
    "user": _USER,
    "state": "open",
    "draft": False,
    "merged": False,
    "merge_commit_sha": None,
    "head": {"ref": "greeting", "sha": "6dcb09b5b57875f334f61aebed695e2e4193db5e", "repo": _REPOSITORY},
    "base": {"ref": "main", "sha": "c5b97d5ae6c19d5c5df71a34c7fbeeda2479ccbc", "repo": _REPOSITORY},
    "body": "Closes #42",
    "created_at": "2026-11-20T10:02:41Z",
    "updated_at": "2026-11-20T10:02:41Z",
}
_COMMIT = {
    "id": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "message": "Bring the greeting back",
    "timestamp": "2026-11-20T10:00:12Z",
    "url": "https://github.com/octo-org/hello-world/commit/6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "author": {"name": "The Octocat", "email": "octocat@example.org", "username": "octocat"},
    "added": [],
    "removed": [],
    "modified": ["greeting.py"],
}

GITHUB: Mapping[str, Mapping[str, Any]] = {
    "issues.opened": {"action": "opened", "issue": _ISSUE, **_BASE},
    "issues.closed": {
        "action": "closed",
        "issue": {**_ISSUE, "state": "closed", "closed_at": "2026-11-21T08:00:00Z", "state_reason": "completed"},
        **_BASE,
    },
    "issue_comment.created": {
        "action": "created",
        "issue": {**_ISSUE, "comments": 1},
        "comment": {
            "id": 992283651,
            "html_url": "https://github.com/octo-org/hello-world/issues/42#issuecomment-992283651",
            "user": _USER,
            "body": "I can reproduce this.",
            "created_at": "2026-11-20T11:30:00Z",
            "author_association": "MEMBER",
        },
        **_BASE,
    },
    "pull_request.opened": {"action": "opened", "number": 43, "pull_request": _PULL_REQUEST, **_BASE},
    "pull_request.closed": {
        "action": "closed",
        "number": 43,
        "pull_request": {
            **_PULL_REQUEST,
            "state": "closed",
            "merged": True,
            "merge_commit_sha": "e5bd3914e2e596debea16f433f57875b5b90bcd6",
        },
        **_BASE,
    },
    "push": {
        "ref": "refs/heads/main",
        "before": "c5b97d5ae6c19d5c5df71a34c7fbeeda2479ccbc",
        "after": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
        "created": False,
        "deleted": False,
        "forced": False,
        "pusher": {"name": "octocat", "email": "octocat@example.org"},
        "commits": [_COMMIT],
        "head_commit": _COMMIT,
        **_BASE,
    },
    "release.published": {
        "action": "published",
        "release": {
            "id": 87654321,
            "tag_name": "v1.0.0",
            "name": "1.0.0",
            "draft": False,
            "prerelease": False,
            "html_url": "https://github.com/octo-org/hello-world/releases/tag/v1.0.0",
            "author": _USER,
            "body": "The greeting is back.",
            "published_at": "2026-11-22T12:00:00Z",
            "assets": [],
        },
        **_BASE,
    },
    "workflow_run.completed": {
        "action": "completed",
        "workflow_run": {
            "id": 30433642,
            "name": "CI",
            "head_branch": "main",
            "head_sha": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
            "event": "push",
            "status": "completed",
            "conclusion": "success",
            "run_number": 562,
            "run_attempt": 1,
            "html_url": "https://github.com/octo-org/hello-world/actions/runs/30433642",
        },
        **_BASE,
    },
    "ping": {"zen": "Keep it logically awesome.", "hook_id": 109948940, "hook": {"type": "Repository"}, **_BASE},
}

SLACK: Mapping[str, Mapping[str, Any]] = {
    "message.channels": {"channel_type": "channel", "text": "Good morning", "ts": "1700000000.000200"},
    "app_mention": {"text": "<@U0LAN0Z89> hello", "ts": "1700000000.000300"},
    "reaction_added": {
        "reaction": "thumbsup",
        "item": {"type": "message", "channel": "C2147483705", "ts": "1700000000.000200"},
        "item_user": "U222222222",
        "event_ts": "1700000000.000400",
    },
}


def example_of(provider: str, kind: str) -> Example | None:
    """Return a request of a kind, unsigned; None where it must be made of the provider's own example."""
    if provider == "github" and kind in GITHUB:
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": kind.partition(".")[0],
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        }
        return Example(body=canonical_json(GITHUB[kind]), headers=headers)
    if provider == "slack" and kind in SLACK:
        return Example(body=canonical_json(_slack(kind)))
    return None


def kinds(provider: str) -> tuple[str, ...]:
    """Return the kinds that have a shape of their own."""
    return tuple({"github": GITHUB, "slack": SLACK}.get(provider, ()))


def _slack(kind: str) -> Mapping[str, Any]:
    """Return the envelope of an event of Slack."""
    return {
        "type": "event_callback",
        "token": "XXYYZZ",
        "team_id": "T061EG9R6",
        "api_app_id": "A0PNCHHK2",
        "event": {"type": kind.partition(".")[0], "user": "U061F7AUR", "channel": "C2147483705", **SLACK[kind]},
        "event_id": "Ev0PV52K25",
        "event_time": 1700000000,
    }
