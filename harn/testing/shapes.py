"""
Requests as senders post them, by provider and kind: the fields that handlers use, named and nested as in real ones.

Sources: GitHub, "Webhook events and payloads"; Linear, "Webhooks"; GitLab, "Webhook events";
Zendesk, "Webhook event types"; SendGrid, "Event Webhook Reference"; Discord, "Interactions" and "Webhook Events";
CloudEvents 1.0.2; Twilio, "Status callbacks". Other kinds come from the provider's own example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlencode

from harn.connectors.messages import Example
from harn.testing.slack_shapes import CHANNELS, INTERACTIONS, SLACK, slack_example
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

_GITHUB_EVENTS = """
branch_protection_configuration branch_protection_rule check_run check_suite code_scanning_alert commit_comment
create custom_property custom_property_values delete dependabot_alert deploy_key deployment
deployment_protection_rule deployment_review deployment_status discussion discussion_comment fork
github_app_authorization gollum installation installation_repositories installation_target issue_comment
issue_dependencies issues label marketplace_purchase member membership merge_group meta milestone org_block
organization package page_build personal_access_token_request ping project project_card project_column projects_v2
projects_v2_item projects_v2_status_update public pull_request pull_request_review pull_request_review_comment
pull_request_review_thread push registry_package release repository repository_advisory repository_dispatch
repository_import repository_ruleset repository_vulnerability_alert secret_scanning_alert
secret_scanning_alert_location secret_scanning_scan security_advisory security_and_analysis sponsorship star status
sub_issues team team_add watch workflow_dispatch workflow_job workflow_run
"""
GITHUB_EVENTS = frozenset(_GITHUB_EVENTS.split())
"""Names of events. Source: GitHub, "Webhook events and payloads"."""


def example_of(provider: str, kind: str) -> Example | None:
    """Return a request of a kind, unsigned; None where it must be made of the provider's own example."""
    if provider == "github" and kind in GITHUB:
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": kind.partition(".")[0],
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        }
        return Example(body=canonical_json(GITHUB[kind]), headers=headers)
    make = _MAKERS.get(provider)
    return None if make is None else make(kind)


def kinds(provider: str) -> tuple[str, ...]:
    """Return the kinds that have a shape of their own."""
    return tuple({"github": GITHUB, "slack": SLACK}.get(provider, ()))


def meant(provider: str, kind: str) -> str | None:
    """
    Return the kind that was probably meant: of a name that is nearly that of an event; None for any other.

    An event that is not listed here may be a new one, so that only what looks like a slip is one.
    """
    if provider == "slack":
        known = (*SLACK, *CHANNELS, *INTERACTIONS)
        return next(iter(get_close_matches(kind, known, n=1, cutoff=0.9)), None) if kind not in known else None
    name, dot, action = kind.partition(".")
    if provider != "github" or name in GITHUB_EVENTS:
        return None
    near = get_close_matches(name, GITHUB_EVENTS, n=1, cutoff=0.8)
    return f"{near[0]}{dot}{action}" if near else None


def _linear(kind: str) -> Example | None:
    """Return an event of Linear: an entity, and what was done to it."""
    entity, _, action = kind.partition(".")
    if not entity or not action:
        return None
    document = {
        "action": action,
        "type": "".join(part.capitalize() for part in entity.split("_")),
        "organizationId": "f9f1a3c1-7d0b-4f3e-9c0b-2f6a3d7d1e11",
        "webhookTimestamp": 1700000000000,
        "webhookId": "000042e3-d123-4980-b49f-8e140eef9329",
        "createdAt": "2023-11-14T22:13:20.000Z",
        "url": "https://linear.app/octo/issue/ENG-7",
        "actor": {"id": "b5ea5f1f-8adc-4f52-b4bd-ab4e84cf51ba", "type": "user", "name": "Octo Cat"},
        "data": {
            "id": "2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9",
            "identifier": "ENG-7",
            "title": "Bring the greeting back",
        },
    }
    return Example(body=canonical_json(document), headers={"Linear-Event": str(document["type"])})


def _gitlab(kind: str) -> Example | None:
    """Return an event of a project of GitLab: its kind, and the action where it has one."""
    kind, _, action = kind.partition(".")
    attributes = {"id": 301, "iid": 23, "title": "Bring the greeting back", "state": "opened"}
    document: dict[str, Any] = {
        "object_kind": kind,
        "event_name": kind,
        "user": {"id": 1, "name": "Octo Cat", "username": "octocat"},
        "project": {
            "id": 1,
            "name": "hello-world",
            "path_with_namespace": "octo/hello-world",
            "default_branch": "main",
        },
    }
    if kind in ("push", "tag_push"):
        document |= {"ref": "refs/heads/main", "checkout_sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"}
        document |= {"commits": [], "total_commits_count": 0, "project_id": 1}
    else:
        document["object_attributes"] = {**attributes, "action": action} if action else attributes
    return Example(body=canonical_json(document), headers={"Content-Type": "application/json"})


def _zendesk(kind: str) -> Example:
    """Return an event of Zendesk."""
    document = {
        "account_id": 22129848,
        "detail": {"id": "5158", "status": "OPEN", "priority": "HIGH", "subject": "The greeting is gone"},
        "event": {"current": "OPEN", "previous": "NEW"},
        "id": "2b24ef10-19d5-4c2a-a3b5-0b1c5f2f3b11",
        "subject": "zen:ticket:5158",
        "time": "2025-01-08T10:12:07Z",
        "type": f"zen:event-type:{kind}",
        "zendesk_event_version": "2022-11-06",
    }
    return Example(body=canonical_json(document), headers={"Content-Type": "application/json"})


def _sendgrid(kind: str) -> Example:
    """Return a request of SendGrid with one event."""
    document = [
        {
            "email": "octocat@example.org",
            "timestamp": 1700000000,
            "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>",
            "event": kind,
            "category": ["greeting"],
            "sg_event_id": "ZGVsaXZlcmVkLTAtMTA2NjU",
            "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv",
        }
    ]
    return Example(body=canonical_json(document), headers={"Content-Type": "application/json"})


_INTERACTIONS = {"application_command": 2, "message_component": 3, "modal_submit": 5}


def _discord(kind: str) -> Example:
    """Return an interaction of Discord, or an event of an app."""
    of, _, name = kind.partition(".")
    number = _INTERACTIONS.get(of)
    if number is None:
        event = {"type": kind.upper(), "timestamp": "2024-10-18T14:42:53.064834", "data": {"user": {"id": "5"}}}
        return Example(body=canonical_json({"version": 1, "application_id": "1", "type": 1, "event": event}))
    document = {
        "type": number,
        "id": "846462639134605312",
        "application_id": "1",
        "token": "A",
        "guild_id": "2",
        "channel_id": "3",
        "member": {"user": {"id": "5", "username": "octocat"}},
        "data": {"id": "4", "custom_id": "confirm", **({"name": name} if name else {})},
    }
    return Example(body=canonical_json(document), headers={"Content-Type": "application/json"})


def _cloudevents(kind: str) -> Example:
    """Return an event in structured mode."""
    document = {
        "specversion": "1.0",
        "type": kind,
        "source": "/orders",
        "id": "A234-1234",
        "time": "2018-04-05T17:31:00Z",
        "datacontenttype": "application/json",
        "data": {"order": 7},
    }
    return Example(body=canonical_json(document), headers={"Content-Type": "application/cloudevents+json"})


def _twilio(kind: str) -> Example:
    """Return the status of a message or call as a form, or an event of a stream as JSON."""
    of, _, state = kind.partition(".")
    name = {"message": "MessageStatus", "call": "CallStatus"}.get(of)
    if name is None or not state:
        event = {
            "specversion": "1.0",
            "type": kind,
            "id": "EZ1",
            "source": "/2010-04-01",
            "data": {"accountSid": "AC1"},
        }
        return Example(
            body=canonical_json([event]), headers={"Content-Type": "application/json", "Host": "example.com"}
        )
    fields = {"AccountSid": "AC1", "From": "+15551230001", "To": "+15551230002", name: state}
    fields |= {"MessageSid": "SM1", "Body": "hello", "NumMedia": "0"} if of == "message" else {"CallSid": "CA1"}
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "example.com"}
    return Example(body=urlencode(fields).encode("ascii"), headers=headers)


_MAKERS: Mapping[str, Callable[[str], Example | None]] = {
    "cloudevents": _cloudevents,
    "discord": _discord,
    "gitlab": _gitlab,
    "linear": _linear,
    "sendgrid": _sendgrid,
    "slack": slack_example,
    "twilio": _twilio,
    "zendesk": _zendesk,
}
"""Make a request of any kind of a provider that has the kind in several places."""
