"""
The store of a state directory: SQLite in the directory, or PostgreSQL elsewhere, as environment, options and manifest
say.

A server on PostgreSQL notes the address of its store, without a password, in the file ``store`` of its state directory.
Commands find the store by that note while no server runs, and a later start without an address is refused instead of
beginning with an empty store unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
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
"""The database's name in a state directory. `harn.store.sqlite.store` has it, too, but is slow to import."""
NOTE = "store"
"""The name of the file that holds the address of a store outside the state directory."""


@frozen
class Secrets:
    """Reads the secret that holds the password of a store."""

    environ: Mapping[str, str] = field(repr=False)

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Return the value of the secret. Blocks.

        :raises SecretUnavailable: the secret cannot be read.
        """
        from harn.secrets.providers import SecretChain

        return SecretChain.from_environment(self.environ).resolve(reference)


def read_address(text: str, where: str) -> Address:
    """
    Read the address of a store.

    :param where: the source of ``text``, for the message.
    :raises StateDirectoryUnusable: ``text`` is not the address of a store.
    """
    try:
        return Address.read(text)
    except ValueError as wrong:
        raise StateDirectoryUnusable(f"{where}: {wrong}") from None


def address_of(options: ServeOptions) -> Address | None:
    """
    Return the address of the store of a server; None for SQLite in its state directory. Blocks.

    The flag or the environment variable wins over the manifest. If the manifest cannot be read, the address that the
    previous server noted is used, since a server may start from its last good generation.

    :raises StateDirectoryUnusable: the address is wrong, or the previous server used PostgreSQL and no address is
        given now.
    """
    noted = noted_address(options.state_dir)
    if options.store is not None:
        return read_address(options.store, "--store, or HARN_ORCHESTRATOR_STORE")
    try:
        named = _setting(options.manifest)
    except (OSError, ValueError):
        return noted  # the start reports the problems of the manifest
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
    Return the setting ``[orchestrator] store`` of a manifest; None if it has none.

    :raises OSError, ValueError: the manifest cannot be read.
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
    Return the address that the last server on a state directory noted; None for SQLite.

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
    Write the note with the address of a store outside the state directory. Blocks.

    :raises OSError: the note cannot be written.
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
    """Return the name of a state directory in a store: a digest of its key that does not reveal the key."""
    return hashlib.sha256(b"harn store home " + hash_key).hexdigest()[:32]


def make_store(
    options: ServeOptions, reactor: Any, environ: Mapping[str, str], wall: WallTime, guard: Guard | None, home: str
) -> IStore:
    """
    Make the store of a server; it is not opened.

    :param home: the name of the state directory in the store; see `home_of`.
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

    :raises StateDirectoryUnusable: the state directory has no store.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        use = StoreUse(state_dir, _home_in(state_dir), alone=True)
        return _make_postgres_store(address, reactor, environ, wall, guard, use)
    check_has_store(state_dir, environ)
    return make_sqlite_store(state_dir, reactor, wall, guard)


def make_sqlite_store(state_dir: str, reactor: Any, wall: WallTime, guard: Guard | None) -> IStore:
    """Make the SQLite store of a state directory; it is not opened."""
    from harn.store.sqlite.store import SQLiteStore

    path = os.path.join(state_dir, DATABASE)
    return SQLiteStore.at(path, reactor, wall=wall, guard=guard, evidence=(state_path(state_dir),))


class StoreUse(Struct, frozen=True):
    """
    The use of a PostgreSQL store by a server, a worker or a command.

    :ivar state_dir: the state directory that uses the store.
    :ivar home: the name of that state directory in the store; see `home_of`.
    :ivar alone: True for use that is refused while a server of another state directory uses the store.
    :ivar shared_dir: for a worker, the state directory that all workers share; else None.
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
    Return the name in a store of a state directory on which a server has run.

    :raises StateDirectoryUnusable: no server has run on it.
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

    :raises StateDirectoryUnusable: the address is wrong.
    """
    named = environ.get(STORE.env)
    return read_address(named, STORE.env) if named else noted_address(state_dir)


def has_store(state_dir: str, environ: Mapping[str, str]) -> bool:
    """Return whether a state directory has a store, inside it or elsewhere; the store itself is not examined."""
    named = environ.get(STORE.env) or os.path.lexists(os.path.join(state_dir, NOTE))
    return bool(named) or os.path.lexists(os.path.join(state_dir, DATABASE))


def check_has_store(state_dir: str, environ: Mapping[str, str]) -> None:
    """
    Refuse a state directory without a store. Call it before the lock is taken, since that makes the directory.

    :raises StateDirectoryUnusable: the state directory has no store.
    """
    if not has_store(state_dir, environ):
        path = os.path.join(state_dir, DATABASE)
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")


def open_offline(state_dir: str, environ: Mapping[str, str]) -> OfflineStore:
    """
    Open the store of a state directory to read it.

    :raises StateDirectoryUnusable: the directory has no store, or the store is not harn's or cannot be read.
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
    Run the writes of a command to a store as one transaction. The caller holds the state directory's lock.

    :raises StateDirectoryUnusable: the directory has no store, or the store cannot be used.
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
    Refuse a command that works on the file of an event log if the store has no such file.

    :param what: the name of the command's work, for the message.
    :param instead: what to do instead, for the message.
    :raises StateDirectoryUnusable: the store of this state directory is on PostgreSQL.
    """
    address = offline_address(state_dir, environ)
    if address is not None:
        raise StateDirectoryUnusable(
            f"{what} is about the file of an event log, and the store of {state_dir} is {address.location}: {instead}"
        )
