"""``harn init``: a folder to begin with: a manifest, a handler, its test, and what belongs beside them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from harn.cli.starter import WAYS, Starter
from harn.errors import HarnError
from harn.model.references import FunctionReference, parse_function_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harn.connectors.interfaces import IConnectorPlugin

USUAL_SENDER = "github"
USUAL_HANDLER = "handlers:on_event"
TAKEN = ("harn", "test_handlers")
"""Modules that a handler cannot be in: those of harn, and the tests."""


class CannotBegin(HarnError):
    """The folder has some of the files already, or cannot be written to."""


@click.command()
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(file_okay=False))
@click.option("--sender", metavar="NAME", help=f"What events come from: a provider, cron or poll. ({USUAL_SENDER})")
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

    if not directory:
        raise click.UsageError("DIR must name a folder, got an empty text; leave it out for this folder")
    catalog = Catalog.discover()
    plugins = catalog.plugins
    function = read_handler(handler, directory)
    asks = is_terminal()
    if sender is None and asks:
        question = f"Sender ({', '.join(known_senders(plugins))})"
        plugin = click.prompt(question, default=USUAL_SENDER, value_proc=lambda typed: find_sender(plugins, typed))
    else:
        plugin = find_sender(plugins, USUAL_SENDER if sender is None else sender)
    if name is None and asks:
        name = click.prompt("Name of the trigger", default=plugin.provider, value_proc=check_name)
    starter = Starter(plugin, check_name(plugin.provider if name is None else name), function)
    files = starter.files(json.dumps(manifest_json_schema(catalog.providers), indent=1) + "\n")
    write_files(Path(directory), files)
    show_next(directory, sorted(files), starter)


def is_terminal() -> bool:
    """Return whether the user can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def known_senders(plugins: Mapping[str, IConnectorPlugin]) -> list[str]:
    """Return the senders that a first trigger can be made for."""
    return sorted(name for name, plugin in plugins.items() if any(kind in WAYS for kind in plugin.kinds))


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
    raise click.UsageError(f"--sender must be a provider that is installed, got {sender!r}; {hint}")


def check_name(name: str) -> str:
    """
    Return the id of a trigger, which is a part of its URL, too.

    :raises click.UsageError: it would have to be quoted there.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise click.UsageError(f"--name must have letters, digits, - and _ only, got {name!r}")
    return name


def read_handler(handler: str, directory: str) -> FunctionReference:
    """
    Read ``module:function``.

    :param directory: in which the module is to be.
    :raises click.UsageError: it is something else, or its module is one that is there already.
    """
    try:
        function = parse_function_reference(handler)
    except ValueError as wrong:
        raise click.UsageError(f"--handler {wrong}") from None
    first = function.module.partition(".")[0]
    if first in TAKEN or first in sys.stdlib_module_names or is_installed(first, directory):
        raise click.UsageError(f"--handler must be in a module of its own, got {first!r}, which {handler_clash(first)}")
    return function


def is_installed(module: str, directory: str) -> bool:
    """Return whether a module of this name can be imported from elsewhere than ``directory`` or this folder."""
    here = {os.path.realpath(path) for path in ("", directory)}
    elsewhere = [path for path in sys.path if os.path.realpath(path) not in here]
    return PathFinder.find_spec(module, elsewhere) is not None


def handler_clash(module: str) -> str:
    """Return why a handler cannot be in a module of this name."""
    return "has the tests of the handlers" if module == "test_handlers" else "would hide an installed one"


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """
    Write the files, all or none.

    :raises CannotBegin: some of them are there.
    :raises OSError: one cannot be written.
    """
    there = [name for name in sorted(files) if os.path.lexists(directory / name)]
    if there:
        where = "this folder" if str(directory) == "." else str(directory)
        raise CannotBegin(
            f"{where} has {', '.join(there)} already, and nothing was written; name an empty folder: harn init DIR"
        )
    written: list[Path] = []
    made: list[Path] = []
    try:
        for name, text in files.items():
            path = directory / name
            made += [folder for folder in reversed(path.parents) if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                written.append(path)
                write_text(file, text)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):  # it was not made after all, or another program has put a file there
                folder.rmdir()
        if isinstance(error, OSError) and error.filename is None:  # of a full disk, for example
            raise CannotBegin(f"{written[-1]} cannot be written: {error.strerror}; nothing was written") from error
        raise


def write_text(file: TextIO, text: str) -> None:
    """
    Write a text to a file, past Python's buffer.

    :raises OSError: it cannot be written.
    """
    file.write(text)
    file.flush()


def show_next(directory: str, files: list[str], starter: Starter) -> None:
    """Print the files that were written, and the commands to type next."""
    where = "" if directory == "." else f" to {directory}"
    click.echo(f"wrote {', '.join(files)}{where}")
    click.echo("next:")
    steps = [] if directory == "." else [(f"cd {directory}", "")]
    steps += starter.steps()
    width = max(20, *(len(command) for command, _ in steps))
    for command, about in steps:
        click.echo(f"  {command:<{width}} # {about}" if about else f"  {command}")
