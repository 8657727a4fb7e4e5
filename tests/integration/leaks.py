"""Secrets in what a server wrote: every server of a test is checked for its own, whatever the test is about."""

from __future__ import annotations

import re

from harn.testing.server import ServerProcess

KEYS = ("HARN_ORCHESTRATOR_API_KEYS", "HARN_ORCHESTRATOR_HMAC_SECRET")
"""Variables that hold secrets of the admin API."""
SHORTEST = 8
"""Characters of the shortest secret that is looked for: shorter ones are parts of ordinary words."""


def secrets_of(server: ServerProcess) -> set[str]:
    """Return the secrets of a server: values of variables, contents of files that variables name, its token."""
    found: set[str] = set()
    for name, value in server.environ.items():
        if name.endswith("_FILE"):
            if name.startswith("HARN_") and (server.directory / value).is_file():
                found.update(re.split("[,\n]", (server.directory / value).read_text(errors="replace")))
        elif name.startswith("HARN_SECRET_") or name in KEYS:
            found.update(value.split(","))
    token = server.state_dir / "token"
    if token.is_file():
        found.add(token.read_text())
    return {each.strip() for each in found if len(each.strip()) >= SHORTEST}


def written_by(server: ServerProcess) -> str:
    """Return all text of a server: on standard error and output, and in its log files."""
    files = [server.directory / "stdout.log", server.directory / "twistd.log"]
    files += sorted((server.state_dir / "logs").glob("*"))
    return "\n".join((server.stderr, *(path.read_text(errors="replace") for path in files if path.is_file())))


def leaked(server: ServerProcess) -> list[str]:
    """Return the lines of a server that show one of its secrets."""
    secrets = secrets_of(server)
    return [line for line in written_by(server).splitlines() if any(secret in line for secret in secrets)]
