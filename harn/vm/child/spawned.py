"""
Local modules in the processes that `multiprocessing` starts fresh, with its methods ``spawn`` and ``forkserver``.

Such a process imports the module of its target function. It gets the interpreter's own sources with `multiprocessing`'s
preparation data, so it runs the same code as the interpreter, even if the files have changed.
"""

from __future__ import annotations

import multiprocessing.spawn
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

import msgspec

from harn.vm.frames import Load
from harn.vm.imports import Scope

PREPARE = """
import sys
sys.path[:0] = roots
try:
    from harn.vm.child.spawned import install
finally:
    del sys.path[:len(roots)]
install(bundle)
"""
"""Code for the new process, run before any user code is imported; harn may not be importable there otherwise."""


class PreparedBundle:
    """An object that installs a bundle where it is unpickled, and becomes None there."""

    def __init__(self, roots: Sequence[str], bundle: bytes) -> None:
        """
        Prepare a process.

        :param roots: the directories that hold harn and msgspec.
        :param bundle: an encoded `Load`.
        """
        self._names = {"roots": list(roots), "bundle": bundle}

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, (PREPARE, self._names)


def install(bundle: bytes) -> None:
    """Make the modules of an encoded `Load` importable in this process."""
    load = msgspec.msgpack.decode(bundle, type=Load)
    Scope(load.sources, "", load.root).install()


def prepare_spawned(load: Load, roots: Sequence[str]) -> None:
    """Make the modules of ``load`` importable in every process that `multiprocessing` starts from now on."""
    # The new process would run this program again, as its main module.
    sys.modules["__main__"] = ModuleType("__main__")
    bundle = msgspec.msgpack.encode(load)
    plain = multiprocessing.spawn.get_preparation_data

    @wraps(plain)
    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**plain(name), "harn": PreparedBundle(roots, bundle)}

    multiprocessing.spawn.get_preparation_data = get_preparation_data
