"""Functions of the authors of handlers, found by the names that a manifest has for them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from harn.model.references import parse_function_reference
from harn.vm.child.functions import Unusable, UserFunction, usable

Function = str | Callable[..., Any]
"""A function of the user's: itself, or its name ``module:function`` as in a manifest, imported as tests import it."""


def function_of(named: Function) -> UserFunction:
    """
    Return a function, imported where it is given by its name in the form of a manifest.

    :raises ValueError: it is missing, or cannot be called with an event.
    """
    if not isinstance(named, str):
        return _usable(named, getattr(named, "__name__", repr(named)), "")
    reference = parse_function_reference(named)
    try:
        module = _imported(reference.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{reference.module}.".startswith(f"{error.name}."):
            raise  # a module that it imports is missing
        raise ValueError(
            f"there is no module {error.name!r} in this folder or on sys.path; run tests in the manifest's folder"
        ) from None
    if not hasattr(module, reference.function):
        meant = get_close_matches(reference.function, vars(module), n=1)
        advice = f"did you mean {meant[0]!r}?" if meant else f"define it in {module.__file__}"
        raise ValueError(f"module {reference.module!r} has no function {reference.function!r}; {advice}")
    return _usable(getattr(module, reference.function), reference.function, module.__file__ or "")


def _imported(name: str) -> Any:
    """Import a module; the folder in which the tests run counts, too, as that of a manifest does."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _usable(value: Any, name: str, file: str) -> UserFunction:
    try:
        return usable(value, name, file)
    except Unusable as wrong:
        raise ValueError(f"{wrong.message}; {wrong.hint}") from None
