"""
Execution of an idea's methods: marked as reading or writing, they run in a worker of the store.

An idea of the store is one class here. A method that only reads is marked with `reads`, and gets the reader's
connection; one that writes is marked with `writes`, and gets the writer's session, within a transaction. Callers leave
that argument out and get a Deferred. So each operation is written once, beside its statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from attrs import define

from harn.clocks import WallTime
from harn.store.batch import PlainUnit
from harn.store.database import Arrays

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from harn.store.running import RunningNotes
    from harn.store.worker import Reader
    from harn.store.writer import Writer

I = TypeVar("I", bound="Idea")  # noqa: E741
C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T", covariant=True)


@define(eq=False)
class Executor:
    """
    The workers shared by the ideas of one store; they are replaced each time the store is opened.

    :ivar wall: stamps rows, and decides what has expired.
    :ivar arrays: how many values are given to one statement.
    :ivar incarnation: this server's number, 0 until it is registered.
    :ivar seen_at_start: when each server was alive last, as of our start (seconds, Unix, by incarnation); empty where
        other servers may live that have not renewed their heartbeat since.
    """

    writer: Writer
    reader: Reader
    notes: RunningNotes
    wall: WallTime
    arrays: Arrays
    incarnation: int = 0
    seen_at_start: Mapping[int, float] = {}


class Idea:
    """One idea's part of a store: its tables, and what can be asked of them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor


class reads(Generic[I, C, P, T]):  # noqa: N801  # a decorator
    """
    Marks a method that only reads, written as ``(self, connection, ...) -> T``; called as ``(...) -> Deferred[T]``.

    It runs in the reader's worker, on one state of the database; the Deferred fails with `EventLogUnavailable` when
    that cannot be read. On the class, ``query`` is the method as it was written.
    """

    def __init__(self, query: Callable[Concatenate[I, C, P], T]) -> None:
        self.query = query
        self.__doc__ = query.__doc__

    @overload
    def __get__(self, idea: None, owner: object) -> reads[I, C, P, T]: ...

    @overload
    def __get__(self, idea: I, owner: object) -> Callable[P, Deferred[T]]: ...

    def __get__(self, idea: I | None, owner: object) -> Any:
        if idea is None:
            return self

        def read(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
            query = partial(self.query, idea)
            return idea._executor.reader.read(query, *_copied(args), **kwargs)

        return read


class writes(Generic[I, C, P, T]):  # noqa: N801  # a decorator
    """
    Marks a method that writes, written as ``(self, session, ...) -> T``; called as ``(...) -> Deferred[T]``.

    It runs in the writer's worker, as one unit; the Deferred fires when that is on disk.
    """

    def __init__(self, work: Callable[Concatenate[I, C, P], T]) -> None:
        self.work = work
        self.__doc__ = work.__doc__

    @overload
    def __get__(self, idea: None, owner: object) -> writes[I, C, P, T]: ...

    @overload
    def __get__(self, idea: I, owner: object) -> Callable[P, Deferred[T]]: ...

    def __get__(self, idea: I | None, owner: object) -> Any:
        if idea is None:
            return self

        def write(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
            given = _copied(args)
            return idea._executor.writer.write(PlainUnit(lambda session: self.work(idea, session, *given, **kwargs)))

        return write


def _copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy sets and lists: the worker comes to them later, and the caller may change them meanwhile."""
    return tuple(tuple(each) if isinstance(each, Set | MutableSequence) else each for each in args)
