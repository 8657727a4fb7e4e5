"""
Options and arguments of commands: those of a server and a place, and those that an operation's parameters make.

Each value is read strictly, and refused with a sentence that says what it must be.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from harn.cli.completion import complete, complete_path
from harn.errors import HarnError
from harn.operations.model import Operation
from harn.operations.parameters import Parameter, Parameters
from harn.options import MANIFEST, STATE_DIR, Option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

P = TypeVar("P", bound=Parameters)
Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

LONGEST_WAIT = 1e9
"""Seconds; sockets take no longer ones."""
BIGGEST = 2**63 - 1
"""The biggest number that the store can hold."""


SHORT: Mapping[str, str] = MappingProxyType(
    {
        "config": "-c",
        "state-dir": "-s",
        "bind": "-b",
        "watch": "-w",
        "json": "-j",
        "limit": "-n",
        "trigger": "-t",
        "kind": "-k",
    }
)
"""The short options: one letter means the same in every command."""


def short(name: str) -> tuple[str, ...]:
    """Return the short form of an option, if it has one."""
    return (SHORT[name],) if name in SHORT else ()


class WholeNumber(click.IntRange):
    """A whole number of at least ``low``, and at most ``high``."""

    def __init__(self, low: int, high: int = BIGGEST) -> None:
        super().__init__(low, high)
        self._wanted = f"an integer of at least {low}" + ("" if high == BIGGEST else f" and at most {high}")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"must be {self._wanted}, got {value!r}", param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds over 0; not "nan", which is in no range and outside of none."""

    def __init__(self) -> None:
        super().__init__(0, LONGEST_WAIT, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one."""
        try:
            seconds = super().convert(value, param, ctx)
        except click.BadParameter:
            seconds = math.nan
        if math.isnan(seconds):
            self.fail(f"must be a number of seconds greater than 0, got {value!r}", param, ctx)
        return seconds


def flag(option: Option) -> Decorator:
    """
    Make a click option that passes on what was typed, and nothing when it was not.

    The environment and the default are left to whoever reads the values: `ServeOptions.from_values`,
    for example. One place decides who wins.
    """
    shown = f"{option.help} [{option.env}]"
    if option.default is not None and not option.is_switch:
        shown += f" (default: {option.default})"
    names = [*short(option.name), *(f"--{name}" for name in (option.name, *option.aliases))]
    if option.is_switch:
        return click.option(*names, option.key, is_flag=True, default=None, help=shown)
    is_path = option.metavar == "PATH"
    return click.option(
        *names,
        option.key,
        default=None,
        metavar=option.metavar,
        help=shown,
        shell_complete=complete_path if is_path else None,
    )


def with_flags(*options: Option) -> Decorator:
    """Return a command several of them, in order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = flag(option)(command)
        return command

    return decorate


def with_place(command: Command) -> Command:
    """Return a command ``--config`` and ``--state-dir``."""
    return with_flags(MANIFEST, STATE_DIR)(command)


def with_json(command: Command) -> Command:
    """Return a command ``--json``."""
    return click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")(command)


class ValueOf(click.ParamType[Any]):
    """The type of an option or argument: what a parameter of an operation may be."""

    def __init__(self, parameter: Parameter) -> None:
        self.name = parameter.metavar
        self._parameter = parameter

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the values that a shell completes."""
        from click.shell_completion import CompletionItem

        name = {"old": "generation", "new": "generation"}.get(self._parameter.name, self._parameter.name)
        return [CompletionItem(value) for value in complete(name, ctx, incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a value as the server would, so that what it would refuse is not sent."""
        if not isinstance(value, str):
            return value
        try:
            return self._parameter.read_text(value)
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


def with_parameters(
    operation: Operation[Any, Any, Any],
    *,
    arguments: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    metavars: Mapping[str, str] = MappingProxyType({}),
    helps: Mapping[str, str] = MappingProxyType({}),
) -> Decorator:
    """
    Return a command an option for each parameter of an operation.

    :param arguments: names of those that are arguments and not options.
    :param without: names of those that the command sets itself.
    :param metavars: what the usage of the command calls arguments, where that is not their names.
    :param helps: what options do, where the command does more with them than the operation.
    """

    def decorate(command: Command) -> Command:
        for each in reversed(operation.fields):
            if each.name in arguments:
                metavar = metavars.get(each.name, each.name.upper())
                argument = click.argument(each.name, type=ValueOf(each), required=each.is_required, metavar=metavar)
                command = argument(command)
            elif each.name not in without:
                command = option(each, helps.get(each.name, each.description))(command)
        return command

    return decorate


def option(parameter: Parameter, help_text: str) -> Decorator:
    """Return the option of a parameter; without a value it is left to the server what holds."""
    name = parameter.key.lower().replace("_", "-")
    flags = (*short(name), f"--{name}")
    if parameter.is_flag:
        return click.option(*flags, parameter.name, is_flag=True, help=help_text)
    is_shown = not parameter.is_required and parameter.default is not None
    return click.option(
        *flags,
        parameter.name,
        type=ValueOf(parameter),
        **({"default": parameter.default, "show_default": True} if is_shown else {}),
        required=parameter.is_required,
        metavar=parameter.metavar,
        help=help_text,
    )


def parameters_from(operation: Operation[Any, P, Any], given: Mapping[str, Any], **fixed: Any) -> P:
    """
    Return the parameters of an operation.

    :param given: values of the command's options and arguments, by name; others are passed over.
    :param fixed: parameters that the command sets itself.
    :raises click.UsageError: some of them do not go together.
    """
    values = {each.name: given[each.name] for each in operation.fields if given.get(each.name) is not None}
    try:
        return operation.parameters(**{**values, **fixed})
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from None


LONGEST_QUOTED = 60
"""Characters of a text that a message quotes."""


class DataWrong(HarnError):
    """A value of ``--data``, or of another option that takes a text or a file, that a command cannot use."""


def read_data(given: str, option: str = "--data") -> bytes:
    """
    Return the bytes that ``TEXT``, ``@FILE`` or ``-`` stand for; ``@-`` is standard input, too.

    :raises DataWrong: the file cannot be read.
    """
    if given in ("-", "@-"):
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return os.fsencode(given)
    path = given[1:]
    try:
        with open(path, "rb") as file:  # a pipe, as of <(...) in a shell, is as good as a file
            return file.read()
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DataWrong(f"{option}: {path or 'the file after @'} cannot be read: {why}") from None


def read_json_data(given: str, option: str, hint: str = "") -> Any:
    """
    Return the JSON value that an option is; see `read_data`.

    :param hint: what to do where it is not JSON.
    :raises DataWrong: it is not JSON, or its file cannot be read.
    """
    try:
        return msgspec.json.decode(read_data(given, option))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = f"{option} must be JSON, got {shortened(given)!r}: {error}"
        raise DataWrong(f"{said}; {hint}" if hint else said) from None


def shortened(text: str) -> str:
    """Return the beginning of a text, for a message."""
    return text if len(text) <= LONGEST_QUOTED else text[:LONGEST_QUOTED] + " ..."
