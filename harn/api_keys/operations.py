"""Operations on named keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from harn.auth.keys import NamedKey, fault_of_name
from harn.clocks import rfc3339
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.api_keys.service import NamedKeys


class ListKeys(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class CreateKey(Parameters, frozen=True, kw_only=True):
    """The key to be made."""

    name: Annotated[str, Meta(description="For example ci; audit records name its holder key:ci.")]
    role: Annotated[
        Literal["read", "operate", "admin"],
        Meta(description="read: look; operate: also act on deliveries and generations; admin: everything."),
    ]

    def __post_init__(self) -> None:
        """
        Check the name.

        :raises ValueError: says what it must be.
        """
        wrong = fault_of_name(self.name)
        if wrong:
            raise ValueError(f"name: {wrong}")


class RevokeKey(Parameters, frozen=True, kw_only=True):
    """The key to be refused from now on."""

    name: Annotated[str, Meta(description="As keys.list returns it.")]


class KeyInfo(Result, frozen=True, kw_only=True):
    """One named key; the key itself is not kept."""

    name: str
    role: str
    made_at: str
    made_by: Annotated[str, Meta(description="The actor.")]


class KeyList(Result, frozen=True, kw_only=True):
    """The named keys, in alphabetical order."""

    keys: tuple[KeyInfo, ...]


class KeyCreated(Result, frozen=True, kw_only=True):
    """A new key, shown this once."""

    name: str
    role: str
    key: str


class KeyRevoked(Result, frozen=True, kw_only=True):
    """The key that is refused now."""

    name: str


@operation("keys.list", role=Role.ADMIN, route=Get("/keys"))
async def list_keys(keys: NamedKeys, caller: Caller, wanted: ListKeys) -> KeyList:
    """List the named keys; those of the environment are not among them."""
    return describe_keys(keys.ring)


@operation(
    "keys.create",
    role=Role.ADMIN,
    route=Post("/keys"),
    example={"name": "ci", "role": "operate"},
    audit=lambda made: {"created": 1},
)
async def create_key(keys: NamedKeys, caller: Caller, wanted: CreateKey) -> KeyCreated:
    """
    Make a key with a role, which counts immediately.

    :raises WrongState: there is a key of that name, or there are too many keys.
    """
    made, key = await keys.create(wanted.name, Role(wanted.role), caller.actor)
    return KeyCreated(name=made.name, role=made.role.value, key=key)


@operation(
    "keys.revoke",
    role=Role.ADMIN,
    route=Post("/keys/{name}/revoke"),
    example={"name": "ci"},
    audit=lambda done: {"revoked": 1},
)
async def revoke_key(keys: NamedKeys, caller: Caller, wanted: RevokeKey) -> KeyRevoked:
    """
    Refuse a key from now on; sessions of the console that were begun with it end.

    :raises RouteUnknown: there is no key of that name.
    """
    await keys.revoke(wanted.name)
    return KeyRevoked(name=wanted.name)


def describe_keys(keys: Iterable[NamedKey]) -> KeyList:
    """Return the description of keys."""
    return KeyList(
        keys=tuple(
            KeyInfo(name=each.name, role=each.role.value, made_at=rfc3339(each.made_at), made_by=each.made_by)
            for each in keys
        )
    )


OPERATIONS = (list_keys, create_key, revoke_key)
"""Those of `NamedKeys`."""
