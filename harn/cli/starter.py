"""The texts of the files that ``harn init`` writes."""

from __future__ import annotations

from typing import Any

import msgspec

from harn.connectors.interfaces import IConnectorPlugin
from harn.model.references import FunctionReference, SecretReference
from harn.secrets.providers import variable_name

SCHEMA = "harn.schema.json"
"""The file that `manifest` names in its first line."""

IGNORED = """\
# State, logs and demo secrets of a server that is started in this folder.
.harn/
# Secrets.
.env
__pycache__/
_trial_temp*/
.pytest_cache/
"""


def secrets_of(plugin: IConnectorPlugin) -> dict[str, SecretReference]:
    """Return the secrets that a trigger of a provider names, by their names."""
    one_of = tuple(getattr(plugin, "one_of_secrets", ()))
    names = (*plugin.required_secrets, *one_of[:1])
    return {name: SecretReference(plugin.provider, name.replace("_", "-")) for name in names}


def manifest(plugin: IConnectorPlugin, name: str, handler: str) -> str:
    """Return the manifest of one trigger."""
    lines = [
        f"#:schema ./{SCHEMA}",
        "# The line above lets editors complete and check this file; `harn check` checks it whole.",
        "",
        "[[triggers]]",
        f"id = {_toml(name)}",
        'kind = "webhook"',
        f"provider = {_toml(plugin.provider)}",
        'match = { events = [] } # all kinds of events; for example ["issues.*"] takes some',
        f"handler = {_toml(handler)}",
        'dedupe_key = "event.dedupe_key" # an event that is sent again is handled once',
        'retry = { max = 5, backoff = "exponential" }',
    ]
    secrets = secrets_of(plugin)
    if secrets:
        named = ", ".join(f"{key} = {_toml(str(reference))}" for key, reference in secrets.items())
        lines.append(f"secrets = {{ {named} }} # values come from the environment: see .env.example")
    settings = getattr(plugin, "example_settings", None)
    if settings and plugin.table is not None:
        lines += ["", f"[triggers.{plugin.table}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Write a text, number, boolean or list of these as TOML, which is JSON for them."""
    return msgspec.json.encode(value).decode()


def handler(function: str, provider: str) -> str:
    """Return a module with a handler that says what it gets."""
    return f'''"""What happens with events; harn.toml names these functions."""

from harn.handlers import Context, TriggerEvent


async def {function}(event: TriggerEvent, context: Context) -> dict:
    """Handle one event of {provider}; what is returned is kept as the result of the delivery."""
    context.log.info("received an event", kind=event.kind)
    # The body of the request, parsed, is event.provider_payload["raw"].
    # An exception fails this attempt, and the next one comes later, as `retry` in harn.toml says.
    return {{"kind": event.kind}}
'''


def test(provider: str, handler: FunctionReference) -> str:
    """Return a test of the handler, for unittest, pytest or trial."""
    return f'''"""Tests of the handlers, without a server: python -m unittest, pytest, or trial."""

import unittest

from harn.testing.handlers import example, run_handler


class HandlerTests(unittest.TestCase):
    def test_example(self):
        event = example("{provider}")
        run = run_handler("{handler}", event)
        self.assertEqual(run.outcome, "success", run)
        self.assertEqual(run.result, {{"kind": event.kind}})
'''


def environment(plugin: IConnectorPlugin) -> str:
    """Return the variables that a server needs, without their values."""
    lines = [
        "# Copy this file to .env, fill in the values, and load them into the shell that starts the server:",
        "#   set -a; . ./.env; set +a; harn serve",
        "# `harn dev` has demo values for those that are not set.",
        "",
    ]
    for key, reference in secrets_of(plugin).items():
        lines += [f"# {key} of {plugin.provider}", f"{variable_name(reference)}="]
    lines += ["# Keys for the admin API from other machines, separated by commas.", "#HARN_ORCHESTRATOR_API_KEYS="]
    return "\n".join(lines) + "\n"
