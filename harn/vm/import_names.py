"""The names that a module's source may import, from its syntax tree: a pure function of the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_IMPORTING_CALLS = frozenset(("import_module", "__import__"))


def import_names(source: bytes, path: str, name: str, *, is_package: bool) -> tuple[str, ...]:
    """
    Return every module that ``source`` may import, wherever in it the import is.

    ``from a import b`` gives ``a`` and ``a.b``, since ``b`` may be a module; ``import a.b`` gives ``a`` and ``a.b``.
    ``importlib.import_module("a.b")`` with a string literal counts, and so do the names in a package's ``__all__``.

    :param path: for the message of a syntax error.
    :param name: the module's own dotted name, to which relative imports are relative.
    :return: absolute dotted names, each once, in order of their first appearance.
    :raises SyntaxError: with the line; a wrong encoding is one too.
    :raises ValueError: the source holds a null byte.
    :raises RecursionError: it nests deeper than the parser follows.
    """
    try:
        tree = ast.parse(source, path)
    except SystemError:
        # CPython counts depth for all threads together: a finalizer that formats a traceback (which parses) during this
        # parse upsets the count. The source is not at fault.
        tree = ast.parse(source, path)
    package = name if is_package else name.rpartition(".")[0]
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        for mentioned in _of_node(node, package, is_package=is_package):
            steps = mentioned.split(".")
            for length in range(1, len(steps) + 1):
                found.setdefault(".".join(steps[:length]))
    return tuple(found)


def _of_node(node: ast.AST, package: str, *, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node.module or "", node.level, package)
        if base:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        text = node.args[0]
        if called in _IMPORTING_CALLS and isinstance(text, ast.Constant) and isinstance(text.value, str):
            plain = text.value.lstrip(".")
            absolute = _absolute(plain, len(text.value) - len(plain), package)
            if all(step.isidentifier() for step in absolute.split(".")):
                yield absolute
    elif is_package and isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Tuple):
        names = node.value.elts if any(getattr(target, "id", "") == "__all__" for target in node.targets) else ()
        for each in names:
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
                yield f"{package}.{each.value}"


def _absolute(module: str, level: int, package: str) -> str:
    """Return the absolute name of a relative import; empty when it leaves its package."""
    if level == 0:
        return module
    steps = package.split(".") if package else []
    if level > len(steps):
        return ""
    base = steps[: len(steps) - level + 1]
    return ".".join([*base, module] if module else base)
