"""The address of a PostgreSQL store: a URL of libpq's with two further parameters, and no password in messages."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from attrs import field, frozen

from harn.errors import SecretUnavailable, StateDirectoryUnusable
from harn.model.references import SecretReference, parse_secret_reference

SCHEMES = ("postgresql", "postgres")
PASSWORD_SECRET = "password_secret"  # noqa: S105 - the name of a parameter
"""The parameter that names the secret with the password."""
SCHEMA = "schema"
"""The parameter that names the schema of the tables."""
DEFAULT_SCHEMA = "harn"


class ISecretReader(Protocol):
    """Reads the secret with the password of a store; see `harn.orchestrator.stores.Secrets`."""

    def resolve(self, reference: SecretReference) -> bytes:
        """
        Return its value.

        :raises SecretUnavailable: it cannot be read.
        """


def is_postgres(text: str) -> bool:
    """Return whether a setting names a PostgreSQL store."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


@frozen(kw_only=True)
class Address:
    """
    Where a PostgreSQL store is.

    :ivar text: the URL as it was given, without a password.
    :ivar location: for messages and the state file: without user and password, and without the query.
    :ivar schema: of the tables.
    :ivar conninfo: for libpq.
    :ivar password: from the URL.
    :ivar secret: names the one that has it.
    """

    text: str
    location: str
    schema: str
    conninfo: str
    secret: SecretReference | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, text: str) -> Address:
        """
        Read a URL.

        :raises ValueError: it is not one of PostgreSQL's; never quotes it, since a password may be in it.
        """
        if not is_postgres(text):
            raise ValueError("must be a URL that begins with postgresql://, for example postgresql://harn@db/harn")
        try:
            parts = urlsplit(text)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            host = "".join(parts.netloc.rpartition("@")[2:])
            user = parts.username
        except ValueError:
            raise ValueError("must be a URL of PostgreSQL, for example postgresql://harn@db.example.org/harn") from None
        words = dict(query)
        secret, schema = words.pop(PASSWORD_SECRET, None), words.pop(SCHEMA, DEFAULT_SCHEMA)
        if "password" in words:
            raise ValueError(f"must have no password among its parameters; name a secret with {PASSWORD_SECRET}=")
        if not schema or "\0" in schema or len(schema.encode()) > 63:
            raise ValueError("must name a schema of 1 to 63 bytes in its parameter schema")
        named = host if user is None else f"{user}@{host}"
        plain = urlunsplit(("postgresql", named, parts.path, urlencode(words, quote_via=quote), ""))
        kept = [(name, value) for name, value in query]
        return cls(
            text=urlunsplit(("postgresql", named, parts.path, urlencode(kept, quote_via=quote), "")),
            location=f"postgresql://{host}{parts.path}" + ("" if schema == DEFAULT_SCHEMA else f"?{SCHEMA}={schema}"),
            schema=schema,
            conninfo=plain,
            secret=None if secret is None else parse_secret_reference(secret),
            password=None if parts.password is None else unquote(parts.password),
        )

    def resolved(self, secrets: ISecretReader) -> str | None:
        """
        Return the password; None where libpq is to find it: in ``PGPASSWORD``, ``PGPASSFILE`` or ``~/.pgpass``.

        :raises StateDirectoryUnusable: the secret that has it cannot be read.
        """
        if self.secret is None:
            return self.password
        try:
            return secrets.resolve(self.secret).decode()
        except (SecretUnavailable, UnicodeDecodeError) as error:
            why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise StateDirectoryUnusable(f"the password of the store {self.location} cannot be read: {why}") from error


REFUSES = (
    "check the user, its password (PGPASSFILE, or password_secret= in the URL), that the database is there (createdb),"
    " and that it allows more connections (max_connections)"
)
"""What to do about a PostgreSQL that answers and refuses a connection, whose error has no code."""


def unreachable(
    name: str, error: Exception, advice: str = "start PostgreSQL, or check host, port and firewalls"
) -> str:
    """Return why a database cannot be used, and what to do: ``advice`` where the error has no code of PostgreSQL's."""
    state = getattr(error, "sqlstate", None) or ""
    said = " ".join(str(error).split())
    if state.startswith("28"):
        advice = "check the user and its password (PGPASSFILE, or password_secret= in the URL)"
    elif state == "3D000":
        advice = "make the database (createdb), or name another"
    elif state == "42501":
        advice = "let the database's owner run: harn store migrate; or grant the user the right to make schemas in it"
    elif state.startswith("53"):
        advice = "give PostgreSQL room: on its disk, or for more connections (max_connections)"
    return f"the store {name} cannot be used: {said}; {advice}"
