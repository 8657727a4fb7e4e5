"""Commands made from operations: their options and arguments, their request, and the result that comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import click
import msgspec
from attrs import frozen

from harn.cli.client import OTHER_PROGRAM, AdminClient, ServerUnreachable
from harn.operations.model import Operation
from harn.operations.parameters import Parameter, Parameters
from harn.operations.requests import write_request

P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=msgspec.Struct)
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ValueOf(click.ParamType[Any]):
    """The type of an option or argument: what a parameter of an operation may be."""

    def __init__(self, parameter: Parameter) -> None:
        self.name = parameter.metavar
        self._parameter = parameter

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

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
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
    flag = "--" + parameter.key.lower().replace("_", "-")
    if parameter.is_flag:
        return click.option(flag, parameter.name, is_flag=True, help=help_text)
    is_shown = not parameter.is_required and parameter.default is not None
    return click.option(
        flag,
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


@frozen
class Answered(Generic[R]):
    """
    The answer of a server to an operation.

    :ivar document: the decoded JSON as it came, for ``--json``.
    """

    result: R
    document: Any


def ask(client: AdminClient, operation: Operation[Any, P, R], wanted: P) -> Answered[R]:
    """
    Request an operation of a server.

    :raises RequestRefused: it answered with a problem document.
    :raises ServerUnreachable, AnswerTimedOut: it did not answer, or not as our server would.
    """
    document = client.send(write_request(operation, wanted)).expect_ok()
    try:
        return Answered(msgspec.convert(document, operation.result), document)
    except msgspec.ValidationError as wrong:
        raise ServerUnreachable(OTHER_PROGRAM) from wrong


def print_json(document: Any) -> None:
    """Print a JSON value for ``--json``."""
    click.echo(json.dumps(document, indent=2))
