"""The size of functions and of their lists of parameters, as limits for every module; test_layers.py limits modules."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.test_layers import modules

LONGEST_FUNCTION = 39
MOST_PARAMETERS = 7

LONG_FUNCTIONS: frozenset[str] = frozenset(())
WIDE_FUNCTIONS: frozenset[str] = frozenset(())
"""
What is over a limit today. These lists only shrink: who brings one of these under its limit removes its line, and a new
function is not added.
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    """Yield every function below ``tree`` with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{node.name}", node
            yield from functions(node, f"{prefix}.{node.name}")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}.{node.name}")
        else:
            yield from functions(node, prefix)


def body_lines(function: Function) -> int:
    """Return how many lines the body has, without its docstring and without nested classes: their methods count."""
    body = function.body if ast.get_docstring(function) is None else function.body[1:]
    if not body:
        return 0
    classes = (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.ClassDef))
    within = {line for node in classes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(set(range(body[0].lineno, (body[-1].end_lineno or 0) + 1)) - within)


def parameters(function: Function) -> int:
    """Return how many parameters a function has beside ``self`` or ``cls``."""
    found = function.args
    names = [each.arg for each in (*found.posonlyargs, *found.args)]
    own = names[:1] in (["self"], ["cls"])
    return len(names) - own + len(found.kwonlyargs) + (found.vararg is not None) + (found.kwarg is not None)


def is_wide(function: Function) -> bool:
    """Return whether the function has too many parameters."""
    return parameters(function) > MOST_PARAMETERS


def is_long(function: Function) -> bool:
    """Return whether the body of the function has too many lines."""
    return body_lines(function) > LONGEST_FUNCTION


def over(limit: Callable[[Function], bool]) -> set[str]:
    """Return the dotted names of the functions in ``harn`` of which ``limit`` holds."""
    return {
        name
        for module, path in modules()
        for name, function in functions(ast.parse(path.read_text("utf-8")), module)
        if limit(function)
    }


class ShapeTests(SynchronousTestCase):
    """Functions under 40 lines, with at most 7 parameters."""

    def assert_only(self, found: set[str], allowed: frozenset[str]) -> None:
        """Fail with what is over its limit and not listed, and with what is listed and need not be."""
        self.assertEqual(found - allowed, set(), "over the limit: divide these")
        self.assertEqual(allowed - found, set(), "under the limit, or gone: remove these from the list")

    def test_functions(self) -> None:
        """A function's body has fewer than 40 lines."""
        self.assert_only(over(is_long), LONG_FUNCTIONS)

    def test_parameters(self) -> None:
        """A function that takes more than 7 things, a constructor above all, does more than one."""
        self.assert_only(over(is_wide), WIDE_FUNCTIONS)

    def test_the_limits_can_be_broken(self) -> None:
        """One line or parameter too many is found; docstrings, nested classes and ``self`` are not counted."""
        lines = "\n".join(["    pass"] * (LONGEST_FUNCTION + 1))
        names = ", ".join(f"a{number}" for number in range(MOST_PARAMETERS))
        source = f'def long():\n    """Two\n    lines."""\n{lines}\n'
        source += f"class C:\n  def __init__(self, {names}): ...\n"
        source += f"class D:\n  def __init__(self, {names}, *, more): ...\n"
        source += f"def fits({names}): ...\ndef wide({names}, *more): ...\n"
        source += "def factory():\n    class E:\n" + lines.replace("    ", "        ") + "\n    return E\n"
        found = dict(functions(ast.parse(source), "m"))
        self.assertEqual([name for name in found if is_long(found[name])], ["m.long"])
        self.assertEqual([name for name in found if is_wide(found[name])], ["m.D.__init__", "m.wide"])
        self.assertEqual(body_lines(found["m.factory"]), 1)

    def test_every_module_is_read(self) -> None:
        """The names are those of the source: a function that is there is found."""
        self.assertIn("harn.wire.canonical_json", over(lambda function: True))
