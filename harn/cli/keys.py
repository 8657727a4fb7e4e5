"""``harn orchestrator keys``: named keys of the admin API, of a running server or of a state directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from harn.api_keys.operations import (
    CreateKey,
    KeyCreated,
    KeyList,
    KeyRevoked,
    ListKeys,
    create_key,
    describe_keys,
    list_keys,
    revoke_key,
)
from harn.auth.keys import KEYS, NamedKey, digest_key, make_key, read_keys, with_key, without_key
from harn.cli.client import ask
from harn.cli.offline import OFFLINE_ACTOR, changing
from harn.cli.options import parameters_from, with_json, with_parameters, with_place
from harn.cli.place import ServerTarget, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.model.display import visible
from harn.operations.model import Role

if TYPE_CHECKING:
    from harn.store.offline import OfflineWriter

COLUMNS = (
    Column("Name", lambda key: key.name),
    Column("Role", lambda key: key.role, styles={"admin": "red", "operate": "yellow", "read": "green"}),
    Column("Made at", lambda key: key.made_at),
    Column("Made by", lambda key: key.made_by, drop=1),
)


@click.group()
def keys() -> None:
    """Make, list and revoke named keys of the admin API, each with a role."""


@keys.command("create")
@with_place
@with_parameters(create_key, arguments=("name",))
@with_server
@with_json
def create(target: ServerTarget, as_json: bool, **wanted: Any) -> None:
    """
    Make the key NAME with a role, and print it. It is shown only once: its digest is stored, and not the key.

    A running server accepts it immediately, as Authorization: Bearer KEY, or X-API-Key: KEY.
    """
    parameters = parameters_from(create_key, wanted)
    client = target.client_if_any()
    if client is None:
        made = create_offline(target.location.state_dir, parameters, time.time())
    else:
        made = ask(client, create_key, parameters).result
    if as_json:
        print_json(to_builtins(made))
        return
    click.echo(f"key {made.name} made, with the role {made.role}; it is not shown again:", err=True)
    click.echo(made.key)


@keys.command("list")
@with_place
@with_server
@with_json
def list_(target: ServerTarget, as_json: bool) -> None:
    """List the named keys. Keys from the environment are not shown."""
    client = target.client_if_any()
    found = stored_keys(target.location.state_dir) if client is None else ask(client, list_keys, ListKeys()).result
    if as_json:
        print_json(to_builtins(found))
    else:
        draw(Rows(title="Keys:", columns=COLUMNS, rows=found.keys, none="no named keys; `keys create` makes one"))


@keys.command("revoke")
@with_place
@with_parameters(revoke_key, arguments=("name",))
@with_server
@with_json
def revoke(target: ServerTarget, as_json: bool, **wanted: Any) -> None:
    """Revoke the key NAME; a running server refuses it immediately."""
    parameters = parameters_from(revoke_key, wanted)
    client = target.client_if_any()
    if client is None:
        with changing(target.location.state_dir, revoke_key, parameters, {"revoked": 1}, time.time()) as writer:
            put_keys(writer, without_key(get_keys(writer), parameters.name))
        done = KeyRevoked(name=parameters.name)
    else:
        done = ask(client, revoke_key, parameters).result
    print_json(to_builtins(done)) if as_json else click.echo(f"key {visible(done.name)} revoked")


def stored_keys(state_dir: str) -> KeyList:
    """
    Return the keys of a state directory.

    :raises StateDirectoryUnusable: there is no database, or it is not harn's.
    """
    from harn.cli.sources import open_store

    with open_store(state_dir) as store:
        return describe_keys(read_keys(store.ask(store.checkpoints.get(KEYS))))


def create_offline(state_dir: str, wanted: CreateKey, now: float) -> KeyCreated:
    """
    Make a key while no server runs.

    :param now: seconds, Unix.
    :raises WrongState: there is one of that name, or there are too many.
    :raises StateDirectoryUnusable: a server holds the directory, or none has run on it.
    """
    key, role = make_key(), Role(wanted.role)
    made = NamedKey(name=wanted.name, role=role, digest=digest_key(key), made_at=now, made_by=OFFLINE_ACTOR)
    with changing(state_dir, create_key, wanted, {"created": 1}, now) as writer:
        put_keys(writer, with_key(get_keys(writer), made))
    return KeyCreated(name=made.name, role=role.value, key=key)


def get_keys(writer: OfflineWriter) -> Sequence[NamedKey]:
    """Return the named keys of a state directory on which no server runs."""
    return read_keys(writer.get_checkpoint(KEYS))


def put_keys(writer: OfflineWriter, keys: Sequence[NamedKey]) -> None:
    """Replace them, within the writer's transaction."""
    writer.put_checkpoint(KEYS, to_builtins(tuple(keys)) or None)
