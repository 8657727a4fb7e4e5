"""Hints for a sender without a provider of its own: the provider to write instead."""

from __future__ import annotations

from collections.abc import Iterable

from harn.manifest.diagnostics import nearest, quote, suggest

# Senders whose requests a provider of another name takes, by the signature that their documentation says.
_SAME_AS: dict[str, tuple[str, ...]] = {
    "standard": ("svix", "clerk", "resend", "openai", "supabase", "polar", "render", "brex", "replicate", "liveblocks"),
    "hmac": ("jira", "typeform", "calendly", "hubspot", "intercom", "dropbox", "box", "trello", "asana", "contentful")
    + ("square", "paddle", "docusign", "mailchimp", "woocommerce", "webflow", "vercel", "heroku", "zoom", "circleci"),
    "token": ("telegram", "alertmanager", "argocd", "grafana", "uptimekuma"),
    "basic": ("postmark", "sparkpost", "jenkins"),
    "bitbucket": ("atlassian", "stash"),
    "gitea": ("gogs",),
    "forgejo": ("codeberg",),
    "cloudevents": ("knative", "eventgrid", "harbor"),
}
_MEANT = {sender: provider for provider, senders in _SAME_AS.items() for sender in senders}


def instead(sender: str, known: Iterable[str]) -> str:
    """
    Return what to write for a sender that is not a provider: a near name, or the provider of its way of signing.

    :param known: the providers of this installation.
    """
    names = sorted(known)
    meant = _MEANT.get(sender.lower().replace("-", "").replace("_", ""))
    if meant in names:
        return f"write provider = {quote(meant)}, which takes what {sender} sends"
    if nearest(sender, names) is not None:
        return suggest(sender, names)
    ways = [
        (name, text)
        for name, text in (
            ("standard", "for Standard Webhooks (webhook-signature) or Svix"),
            ("hmac", "for any other HMAC in a header"),
            ("token", "for a token in a header or the query"),
            ("basic", "for user and password"),
        )
        if name in names
    ]
    if not ways:
        return suggest(sender, names)
    said = ", ".join(f"{quote(name)} {text}" for name, text in ways)
    return f"by how it signs, write provider = {said}; installed: {', '.join(names)}"
