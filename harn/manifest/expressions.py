"""Errors in the text of a JMESPath expression, and hints on how to write it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from harn.manifest.diagnostics import quote, suggest

_FUNCTIONS: dict[str, Any] = Functions.FUNCTION_TABLE


@lru_cache(maxsize=16_384)
def fault_of_expression(text: str) -> str | None:
    """Return the error in ``text`` and where it is; None when it is JMESPath and calls only known functions."""
    if not text.strip():
        return "it is empty"
    try:
        tree: Any = jmespath.compile(text).parsed
    except JMESPathError as error:
        return _explain(text, error)
    except RecursionError:
        return "it is nested too deep"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # The library lets some of its own errors through, for example for a literal that is not JSON.
        return str(error).partition("\n")[0]
    return _unknown_function(tree)


def _explain(text: str, error: JMESPathError) -> str:
    position = getattr(error, "lex_position", None)
    said = str(getattr(error, "message", "") or getattr(error, "msg", "") or error).partition("\n")[0].rstrip(":")
    if position is None:
        return said
    if position >= len(text) or getattr(error, "token_value", None) is None:
        return f"it ends too early, after {quote(text[-20:])}"
    rest = text[position:]
    return f"at character {position + 1}, before {quote(rest[:20])}: {said}{_hint(rest)}"


def _hint(rest: str) -> str:
    """Return what to write instead of two common mistakes."""
    if rest.startswith("="):
        return "; to compare, write =="
    number = re.match(r"-?\d+(\.\d+)?", rest)
    return f"; write a number between backticks: `{number.group()}`" if number else ""


def _unknown_function(tree: Any) -> str | None:
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if node["type"] == "function_expression" and node["value"] not in _FUNCTIONS:
            return f"there is no function {quote(node['value'])}; {suggest(node['value'], _FUNCTIONS)}"
        nodes.extend(child for child in node["children"] if isinstance(child, dict))
    return None
