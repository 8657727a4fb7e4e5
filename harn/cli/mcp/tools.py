"""
MCP tools, made from operations: name, description, schema of the arguments, and whether a tool only reads.

A tool sends the request of its operation to the admin API. The server decides what the key of the client may do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.cli.client import AdminClient
from harn.errors import HarnError
from harn.operations.http import object_schema, read_object, show_api, write_request
from harn.operations.model import Operation


@frozen(kw_only=True)
class Tool:
    """
    One tool.

    :ivar name: the operation's, with underscores for dots: some clients accept letters, digits, ``_`` and ``-`` alone.
    :ivar title: the operation's name.
    :ivar schema: the JSON schema of its arguments.
    :ivar is_read_only: whether it changes nothing.
    """

    operation: Operation[Any, Any, Any] = field(repr=False)
    name: str
    title: str
    description: str
    schema: dict[str, Any] = field(repr=False)
    is_read_only: bool


class ToolAnswer(Struct, frozen=True, kw_only=True):
    """
    The answer of a tool.

    :ivar text: for the model: the server's JSON document as it is, or why there is none.
    :ivar document: the same, decoded; None where there is none.
    """

    text: str
    document: Any = None
    is_error: bool = False


def tool_of(operation: Operation[Any, Any, Any]) -> Tool:
    """Return the tool of an operation."""
    is_read_only = operation.route.method == "GET" or operation.audit is None
    effect = "Changes nothing." if is_read_only else "Changes the server's state; leaves an audit record."
    return Tool(
        operation=operation,
        name=operation.name.replace(".", "_"),
        title=operation.name,
        description=f"{operation.summary} {effect} The key must have the role {operation.role.value}.",
        schema=object_schema(operation),
        is_read_only=is_read_only,
    )


def tools_of(operations: Iterable[Operation[Any, Any, Any]], *, read_only: bool = False) -> dict[str, Tool]:
    """
    Return the tools by name, in the order of the operations.

    The description of the API is left out: the tools say the same, and it would fill a model's context.

    :param read_only: only those that change nothing.
    """
    found = (tool_of(each) for each in operations if each is not show_api)
    return {each.name: each for each in found if each.is_read_only or not read_only}


def call_tool(client: AdminClient, tool: Tool, arguments: Mapping[str, Any]) -> ToolAnswer:
    """
    Call a tool: send the request of its operation, and return the answer. Blocks.

    :param arguments: as the tool's schema has them; what the server would refuse is not sent.
    """
    try:
        wanted = read_object(tool.operation, arguments)
        answer = client.send(write_request(tool.operation, wanted))
    except HarnError as error:
        return ToolAnswer(text=str(error), is_error=True)
    is_error = not 200 <= answer.status < 300
    if not isinstance(answer.document, dict):
        said = f"the server answered {answer.status}: {answer.document}"
        return ToolAnswer(text=said, is_error=True)
    return ToolAnswer(text=as_text(answer.document), document=answer.document, is_error=is_error)


def as_text(document: Any) -> str:
    """Return a JSON document as text."""
    return msgspec.json.encode(document).decode("utf-8")
