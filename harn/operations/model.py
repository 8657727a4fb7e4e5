"""The declaration of an operation on a server: its name, parameters, role and route."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

from attrs import field, frozen
from msgspec import Struct

from harn import errors
from harn.operations.parameters import Parameter, Parameters, check_path, parameters_of

_IN_PATH = re.compile(r"\{(\w+)\}")
_RAISES = re.compile(r"^\s*:raises (?P<names>[\w, ]+): (?P<why>.+?)(?=^\s*:|\Z)", re.MULTILINE | re.DOTALL)


class Role(Enum):
    """The permissions of a caller: read; act on deliveries and generations; everything."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Return whether a caller of this role may do what needs the role ``needed``."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)


class Caller(Struct, frozen=True, kw_only=True):
    """
    The caller of an operation.

    :ivar actor: the credential's name: ``key:`` and 8 digits, ``hmac`` or ``token``; see `harn.auth.authenticator`.
    """

    actor: str
    role: Role


class Route(Struct, frozen=True, kw_only=True):
    """
    Where the admin API answers for an operation.

    :ivar path: under ``/admin``; a parameter in it stands in braces: ``/fire/{trigger}``.
    """

    method: str
    path: str

    @property
    def in_path(self) -> tuple[str, ...]:
        """Return the names of the parameters that the path holds."""
        return tuple(_IN_PATH.findall(self.path))

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the path with ``values``, which are quoted already, for its parameters."""
        return _IN_PATH.sub(lambda found: values[found[1]], self.path)


def Get(path: str) -> Route:  # noqa: N802 - reads as the value that it makes
    """Return the route of an operation that reads."""
    return Route(method="GET", path=path)


def Post(path: str) -> Route:  # noqa: N802
    """Return the route of an operation that acts."""
    return Route(method="POST", path=path)


class Result(Struct, frozen=True, kw_only=True):
    """The result of one operation; each operation has a class of its own."""


S = TypeVar("S")
P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Struct)


class Reply(Struct, Generic[R], frozen=True):
    """
    A result with what HTTP says beside it.

    :ivar etag: the entity tag of the live generation, where the result is about it.
    """

    result: R
    status: int = 200
    etag: str | None = None


Counts = Mapping[str, int]
"""How much an operation changed, by what was done: ``{"cancelled": 3}``."""
Audited = Callable[[Any], Counts]
"""Returns from an operation's result how much that changed."""
Run = Callable[[S, Caller, P], Awaitable[Any]]
"""Runs an operation on its service: a coroutine function that returns its result, or a `Reply` with that."""


class Raised(Struct, frozen=True, kw_only=True):
    """An error that an operation raises, and when it does: a sentence."""

    kind: type[BaseException]
    why: str


@frozen(kw_only=True)
class Operation(Generic[S, P, R]):
    """
    One operation of a service of type ``S``.

    :ivar audit: of one that changes something: returns from its result how much it changed.
    :ivar also: further statuses with which its result is answered, and the meaning of each.
    :ivar recorded_as: what audit records call it.
    :ivar summary: one sentence about it.
    :ivar raises: the errors beside those that any operation may raise.
    :ivar example: parameters of a call, by `Parameter.member`, as they stand in a request.
    """

    name: str
    role: Role
    route: Route
    run: Run[S, P] = field(repr=False)
    parameters: type[P]
    result: type[R]
    audit: Audited | None = field(default=None, repr=False)
    also: Mapping[int, str] = field(factory=dict, repr=False)
    recorded_as: str
    summary: str = ""
    raises: tuple[Raised, ...] = field(default=(), repr=False)
    example: Mapping[str, Any] = field(factory=dict, repr=False)

    @cached_property
    def fields(self) -> tuple[Parameter, ...]:
        """Return the parameters, in order: read from their Struct at the first use, and not at each start's import."""
        return parameters_of(self.parameters, self.route.method, self.route.in_path)


class Declare(Protocol):
    """Declares a coroutine function as an operation: the decorator that `operation` returns."""

    def __call__(self, run: Run[S, P], /) -> Operation[S, P, Any]:
        """Return the declaration."""


def operation(
    name: str,
    *,
    role: Role,
    route: Route,
    audit: Audited | None = None,
    recorded_as: str | None = None,
    also: Mapping[int, str] = MappingProxyType({}),
    example: Mapping[str, Any] = MappingProxyType({}),
) -> Declare:
    """
    Declare the decorated coroutine function as an operation.

    It takes a service, the caller and its parameters; the types of parameters and result are read from its signature,
    its summary and what it raises, each a class of `harn.errors`, from its docstring.

    :param name: for example ``drains.cancel``.
    :param audit: of one that changes something: see `Operation`; so is ``recorded_as``, which is its name if None, and
        ``also``, of one that returns a `Reply` with another status than 200, and ``example``.
    """

    def declare(run: Run[S, P]) -> Operation[S, P, Any]:
        parameters, result = _signature(run)
        check_path(parameters, route.in_path)
        return Operation(
            name=name,
            role=role,
            route=route,
            run=run,
            parameters=parameters,
            result=result,
            audit=audit,
            also=also,
            recorded_as=recorded_as or name,
            summary=(run.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
            raises=_raised_by(run.__doc__ or ""),
            example=example,
        )

    return declare


def _raised_by(docstring: str) -> tuple[Raised, ...]:
    """Return the errors that the docstring of an operation names in its ``:raises`` fields."""
    found = []
    for match in _RAISES.finditer(docstring):
        why = " ".join(match["why"].split()).rstrip(".")
        sentence = f"{why[:1].upper()}{why[1:]}."
        found += [Raised(kind=getattr(errors, name.strip()), why=sentence) for name in match["names"].split(",")]
    return tuple(found)


def _signature(run: Run[Any, Any]) -> tuple[Any, Any]:
    """Return the types of parameters and result; the service's is not looked at, since it may not be imported."""
    annotations = dict(run.__annotations__)
    *_, wanted = (name for name in annotations if name != "return")
    read = {"wanted": annotations[wanted], "result": annotations["return"]}
    hints = get_type_hints(type("Signature", (), {"__annotations__": read, "__module__": run.__module__}))
    result = hints["result"]
    return hints["wanted"], get_args(result)[0] if get_origin(result) is Reply else result
