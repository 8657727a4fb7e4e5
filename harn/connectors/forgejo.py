"""Forgejo, and so Codeberg: webhooks of repositories, organizations and the whole instance."""

from __future__ import annotations

from harn.connectors.gitea import forge

FORGEJO = forge("forgejo", __name__, "Forgejo")
SIGNATURE = FORGEJO.scheme
