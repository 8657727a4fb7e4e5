"""``harn init``: a folder to begin with: a manifest, a handler, its test, and what belongs beside them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from harn.errors import HarnError
from harn.model.references import FunctionReference, SecretReference, parse_function_reference
from harn.secrets.providers import variable_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harn.connectors.interfaces import IConnectorPlugin

USUAL_SENDER = "github"
USUAL_HANDLER = "handlers:on_event"
TAKEN = ("harn", "test_handlers")
"""Modules that a handler cannot be in: those of harn, and the tests."""

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


class CannotBegin(HarnError):
    """The folder has some of the files already, or cannot be written to."""


@click.command()
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(file_okay=False))
@click.option("--sender", metavar="NAME", help=f"Who sends the events: a provider. ({USUAL_SENDER})")
@click.option("--name", metavar="ID", help="The trigger's id. (the sender's name)")
@click.option("--handler", default=USUAL_HANDLER, show_default=True, metavar="MODULE:FUNCTION", help="Its handler.")
def init(directory: str, sender: str | None, name: str | None, handler: str) -> None:
    """
    Write the files of a first trigger to DIR, by default this folder.

    These are harn.toml, its JSON schema for editors, a handler and a test of it, .env.example and .gitignore. On a
    terminal it asks for sender and name where they are not given. A file that is there already is not replaced: then
    nothing is written.
    """
    from harn.connectors.catalog import Catalog
    from harn.manifest.json_schema import manifest_json_schema

    catalog = Catalog.discover()
    plugins = catalog.plugins
    asks = is_terminal()
    if sender is None:
        sender = click.prompt(f"Sender ({', '.join(known_senders(plugins))})", default=USUAL_SENDER) if asks else ""
    plugin = find_sender(plugins, sender or USUAL_SENDER)
    if name is None:
        name = click.prompt("Name of the trigger", default=plugin.provider) if asks else plugin.provider
    schema = json.dumps(manifest_json_schema(catalog.providers), indent=1) + "\n"
    files = make_files(plugin, check_name(name), handler, schema)
    write_files(Path(directory), files)
    show_next(directory, plugin, name, sorted(files))


def is_terminal() -> bool:
    """Return whether the user can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def known_senders(plugins: Mapping[str, IConnectorPlugin]) -> list[str]:
    """Return the senders that a first trigger can be made for: those that post to a route."""
    return sorted(name for name, plugin in plugins.items() if "webhook" in plugin.kinds)


def find_sender(plugins: Mapping[str, IConnectorPlugin], sender: str) -> IConnectorPlugin:
    """
    Return the plugin of a sender.

    :raises click.UsageError: there is none; names what there is.
    """
    from harn.manifest.diagnostics import nearest

    known = known_senders(plugins)
    if sender in known:
        return plugins[sender]
    meant = nearest(sender, known)
    hint = f"did you mean {meant!r}?" if meant else f"known: {', '.join(known)}; webhook is any sender that signs"
    raise click.UsageError(f"--sender must be a provider of webhooks, got {sender!r}; {hint}")


def check_name(name: str) -> str:
    """
    Return the id of a trigger, which is a part of its URL, too.

    :raises click.UsageError: it would have to be quoted there.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise click.UsageError(f"--name must have letters, digits, - and _ only, got {name!r}")
    return name


def make_files(plugin: IConnectorPlugin, name: str, handler: str, schema: str) -> dict[str, str]:
    """
    Return the text of each file by its path in the folder.

    :raises click.UsageError: the handler is not ``module:function``.
    """
    try:
        function = parse_function_reference(handler)
    except ValueError as wrong:
        raise click.UsageError(f"--handler: {wrong}") from None
    first = function.module.partition(".")[0]
    if first in TAKEN or first in sys.stdlib_module_names:
        raise click.UsageError(f"--handler must be in a module of its own, got {first!r}, which {handler_clash(first)}")
    return {
        "harn.toml": manifest_text(plugin, name, str(function)),
        SCHEMA: schema,
        f"{function.module.replace('.', '/')}.py": handler_text(function.function, plugin.provider),
        "test_handlers.py": test_text(plugin.provider, function),
        ".env.example": environment_text(plugin),
        ".gitignore": IGNORED,
    }


def handler_clash(module: str) -> str:
    """Return why a handler cannot be in a module of this name."""
    return "has the tests of the handlers" if module == "test_handlers" else "would hide an installed one"


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """
    Write the files, all or none.

    :raises click.UsageError: some of them are there.
    :raises OSError: one cannot be written.
    """
    there = [name for name in sorted(files) if os.path.lexists(directory / name)]
    if there:
        where = "this folder" if str(directory) == "." else str(directory)
        raise CannotBegin(
            f"{where} has {', '.join(there)} already, and nothing was written; name an empty folder: harn init DIR"
        )
    written: list[Path] = []
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def show_next(directory: str, plugin: IConnectorPlugin, name: str, files: list[str]) -> None:
    """Print what was written, and what to type next."""
    where = "" if directory == "." else f" to {directory}"
    click.echo(f"wrote {', '.join(files)}{where}")
    click.echo("next:")
    steps = [] if directory == "." else [(f"cd {directory}", "")]
    steps += [
        ("harn dev", "serve; reload at each save; demo values for secrets that are not set"),
        (f"harn send {name}", f"in a second terminal: a signed request, as {plugin.provider} sends it"),
        ("python -m unittest", "test the handler, without a server"),
    ]
    for command, about in steps:
        click.echo(f"  {command:<20} # {about}" if about else f"  {command}")


def secrets_of(plugin: IConnectorPlugin) -> dict[str, SecretReference]:
    """Return the secrets that a trigger of a provider names, by their names."""
    one_of = tuple(getattr(plugin, "one_of_secrets", ()))
    names = (*plugin.required_secrets, *one_of[:1])
    return {name: SecretReference(plugin.provider, name.replace("_", "-")) for name in names}


def manifest_text(plugin: IConnectorPlugin, name: str, handler: str) -> str:
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


def handler_text(function: str, provider: str) -> str:
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


def test_text(provider: str, handler: FunctionReference) -> str:
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


def environment_text(plugin: IConnectorPlugin) -> str:
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
