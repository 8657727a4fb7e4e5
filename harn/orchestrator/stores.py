"""
The store of a state directory: SQLite in it, or PostgreSQL elsewhere, by environment, options and manifest.

A server on PostgreSQL notes the address in the file ``store`` of its state directory, without a password: commands find
the store there while no server runs, and a later start refuses to begin with another one unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harn.clocks import WallTime
from harn.errors import StateDirectoryUnusable
from harn.model.references import SecretReference
from harn.options import STORE, ServeOptions
from harn.store.lock import state_path
from harn.store.offline import OfflineStore, OfflineWriter
from harn.store.postgres.address import Address

if TYPE_CHECKING:
    from harn.store.interfaces import IStore
    from harn.store.store import Guard

DATABASE = "events.sqlite"
"""The database's name in a state directory; as in `harn.store.sqlite.store`, whose import takes twice as long."""
NOTE = "store"
"""The name of the file with the address of a store that is not in the state directory."""


class Secrets(Struct, frozen=True):
    """Reads the secret with the password of a store."""

    environ: Mapping[str, str]

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Return its value. Blocks.

        :raises SecretUnavailable: it cannot be read.
        """
        from harn.secrets.providers import SecretChain

        return SecretChain.from_environment(self.environ).resolve(reference)


def read_address(text: str, where: str) -> Address:
    """
    Read the address of a store.

    :param where: its source, for the message.
    :raises StateDirectoryUnusable: it is not one.
    """
    try:
        return Address.read(text)
    except ValueError as wrong:
        raise StateDirectoryUnusable(f"{where}: {wrong}") from None


def address_of(options: ServeOptions) -> Address | None:
    """
    Return the address of the store of a server; None for SQLite in its state directory. Blocks.

    The flag or the variable wins over the manifest. Where the manifest cannot be read, a server that starts from its
    last good generation finds it where the one before did.

    :raises StateDirectoryUnusable: the address is wrong, or the server before used PostgreSQL, and nothing names it.
    """
    noted = noted_address(options.state_dir)
    if options.store is not None:
        return read_address(options.store, "--store, or HARN_ORCHESTRATOR_STORE")
    try:
        named = _setting(options.manifest)
    except (OSError, ValueError):
        return noted  # the start says what is wrong with the manifest
    if named is not None:
        return read_address(named, f"{options.manifest_name}: orchestrator.store")
    if noted is not None:
        raise StateDirectoryUnusable(
            f"the last server of {options.state_dir} used the store {noted.location}, and now nothing names it: put"
            " [orchestrator] store back, or, to begin with an empty store, name another state directory"
        )
    return None


def _setting(manifest: str) -> str | None:
    """
    Return ``[orchestrator] store`` of a manifest.

    :raises OSError, ValueError: it cannot be read.
    """
    with open(manifest, "rb") as file:
        text = file.read()
    if b"store" not in text or b"postgres" not in text:  # a large manifest takes a while to parse
        return None
    table = tomllib.loads(text.decode()).get("orchestrator")
    found = table.get("store") if isinstance(table, dict) else None
    return found if isinstance(found, str) else None


def noted_address(state_dir: str) -> Address | None:
    """
    Return the address that the last server on a state directory has noted; None for SQLite.

    :raises StateDirectoryUnusable: the note is damaged.
    """
    path = os.path.join(state_dir, NOTE)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateDirectoryUnusable(f"{path} cannot be read: {error}") from error
    return read_address(text, path)


def note_address(state_dir: str, address: Address) -> None:
    """
    Record the address of a store that is not in the state directory. Blocks.

    :raises OSError: it cannot be written.
    """
    path = os.path.join(state_dir, NOTE)
    beside = path + ".tmp"
    with suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(address.text + "\n")
    os.replace(beside, path)


def home_of(hash_key: bytes) -> str:
    """Return the name of a state directory in a store: a digest of its key, which shows nothing of that."""
    return hashlib.sha256(b"harn store home " + hash_key).hexdigest()[:32]


def make_store(
    options: ServeOptions, reactor: Any, environ: Mapping[str, str], wall: WallTime, guard: Guard | None, home: str
) -> IStore:
    """
    Make the store of a server, which is not open.

    :param home: see `home_of`.
    :raises StateDirectoryUnusable: see `address_of`.
    """
    address = address_of(options)
    if address is None:
        return make_sqlite_store(options.state_dir, reactor, wall, guard)
    note_address(options.state_dir, address)
    use = StoreUse(options.state_dir, home, shared_dir=options.shared_dir)
    return _make_postgres_store(address, reactor, environ, wall, guard, use)


def make_offline_store(
    state_dir: str, reactor: Any, environ: Mapping[str, str], wall: WallTime, guard: Guard
) -> IStore:
    """
    Make the store of a state directory on which no server runs, for a command that changes deliveries.

    :raises StateDirectoryUnusable: there is none.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        use = StoreUse(state_dir, _home_in(state_dir), alone=True)
        return _make_postgres_store(address, reactor, environ, wall, guard, use)
    check_has_store(state_dir, environ)
    return make_sqlite_store(state_dir, reactor, wall, guard)


def make_sqlite_store(state_dir: str, reactor: Any, wall: WallTime, guard: Guard | None) -> IStore:
    """Make the store of a state directory on SQLite, which is not open."""
    from harn.store.sqlite.store import SQLiteStore

    path = os.path.join(state_dir, DATABASE)
    return SQLiteStore.at(path, reactor, wall=wall, guard=guard, evidence=(state_path(state_dir),))


class StoreUse(Struct, frozen=True):
    """
    The use of a store: by which state directory, which name that has there, and whether others may use it, too.

    :ivar shared_dir: of a worker: the state directory of all of them.
    """

    state_dir: str
    home: str
    alone: bool = False
    shared_dir: str | None = None

    @property
    def evidence(self) -> tuple[str, ...]:
        """Return the paths of files that exist once a server has run here."""
        found = (self.state_dir,) if self.shared_dir is None else (self.state_dir, self.shared_dir)
        return tuple(path for each in found for path in (state_path(each), os.path.join(each, DATABASE)))


def _make_postgres_store(
    address: Address, reactor: Any, environ: Mapping[str, str], wall: WallTime, guard: Guard | None, use: StoreUse
) -> IStore:
    from harn.store.postgres.connection import PostgresEndpoint
    from harn.store.postgres.database import PostgresDatabase
    from harn.store.postgres.store import PostgresStore

    endpoint = PostgresEndpoint(address, Secrets(environ))
    database = PostgresDatabase(endpoint, use.state_dir, wall, use.home, use.evidence, alone=use.alone)
    return PostgresStore.at(database, reactor, wall=wall, guard=guard)


def _home_in(state_dir: str) -> str:
    """
    Return the name of a state directory on which a server has run.

    :raises StateDirectoryUnusable: none has.
    """
    from harn.backup.backups import DIGEST_KEY

    try:
        with open(os.path.join(state_dir, DIGEST_KEY), "rb") as file:
            return home_of(file.read())
    except OSError as error:
        raise StateDirectoryUnusable(
            f"{error.filename} cannot be read: {error.strerror}; has a server run on this state directory?"
        ) from error


def offline_address(state_dir: str, environ: Mapping[str, str]) -> Address | None:
    """
    Return the address of the store of a state directory on which no server runs; None for SQLite.

    :raises StateDirectoryUnusable: it is wrong.
    """
    named = environ.get(STORE.env)
    return read_address(named, STORE.env) if named else noted_address(state_dir)


def has_store(state_dir: str, environ: Mapping[str, str]) -> bool:
    """Return whether a state directory has a store, in it or elsewhere, without a look at that."""
    named = environ.get(STORE.env) or os.path.lexists(os.path.join(state_dir, NOTE))
    return bool(named) or os.path.lexists(os.path.join(state_dir, DATABASE))


def check_has_store(state_dir: str, environ: Mapping[str, str]) -> None:
    """
    Refuse a state directory without a store, before its lock is taken, which would make the directory.

    :raises StateDirectoryUnusable: it has none.
    """
    if not has_store(state_dir, environ):
        path = os.path.join(state_dir, DATABASE)
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")


def open_offline(state_dir: str, environ: Mapping[str, str]) -> OfflineStore:
    """
    Open the store of a state directory, to read it.

    :raises StateDirectoryUnusable: there is none, it is not harn's, or it cannot be read.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        from harn.store.postgres import offline as postgres
        from harn.store.postgres.connection import PostgresEndpoint

        return postgres.open_readonly(PostgresEndpoint(address, Secrets(environ)))
    from harn.store.sqlite.offline import open_readonly

    return open_readonly(os.path.join(state_dir, DATABASE))


def write_offline(state_dir: str, environ: Mapping[str, str]) -> AbstractContextManager[OfflineWriter]:
    """
    Run the writes of a command to a store as one transaction; the caller holds the state directory's lock.

    :raises StateDirectoryUnusable: there is none, or it cannot be used.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        from harn.store.postgres import offline as postgres
        from harn.store.postgres.connection import PostgresEndpoint

        return postgres.write_offline(PostgresEndpoint(address, Secrets(environ)), _home_in(state_dir))
    from harn.store.sqlite import offline as sqlite

    return sqlite.write_offline(os.path.join(state_dir, DATABASE))


def refuse_postgres(state_dir: str, environ: Mapping[str, str], what: str, instead: str) -> None:
    """
    Refuse a command about the file of an event log, where there is none.

    :param what: names it.
    :param instead: says what to do.
    :raises StateDirectoryUnusable: the store of this state directory is on PostgreSQL.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        raise StateDirectoryUnusable(
            f"{what} is about the file of an event log, and the store of {state_dir} is {address.location}: {instead}"
        )
