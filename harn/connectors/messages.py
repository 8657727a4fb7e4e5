"""A verified request, parsed, and the facts of it that an event is made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from harn.connectors import bodies
from harn.connectors.interfaces import Respond
from harn.errors import PayloadInvalid
from harn.wire import canonical_json

Path = tuple[str, ...]
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


V = TypeVar("V")


class Message(msgspec.Struct, frozen=True, gc=False):
    """
    A verified request, parsed, or one of the several messages in it.

    :ivar headers: names in lower case.
    :ivar body_format: ``json``, ``form``, ``fields``, ``bytes`` or ``none``: see `harn.model.event.parse_body`.
    :ivar body: the message's own bytes; None for the request's.
    """

    headers: Mapping[str, str]
    body_format: str
    document: bodies.Document
    body: bytes | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> Message:
        """
        Parse a request.

        :raises PayloadInvalid: its body is neither a JSON object nor a form.
        """
        return cls(headers, *bodies.read_message(headers, body))

    @classmethod
    def any_of(cls, headers: Mapping[str, str], body: bytes) -> Message:
        """
        Parse a request with any body: JSON is tried whatever its content type, else it is a form, or bytes.

        :raises PayloadInvalid: the body is declared as JSON or as a form, and is not.
        """
        if not body:
            return cls(headers, "none", bodies.NOTHING)
        if bodies.media_type(headers) == bodies.FORM:
            try:
                return cls.of(headers, body)
            except PayloadInvalid:  # a form may have a field "payload" of another kind
                return cls(headers, "fields", bodies.Document(bodies.read_form(body)))
        claimed = bodies.claims_json(headers)
        if claimed:
            bodies.check_charset(headers, body)
        try:
            return cls(headers, "json", bodies.read_json(body))
        except PayloadInvalid:
            if claimed:
                raise
            return cls(headers, "bytes", bodies.NOTHING)

    @classmethod
    def each_of(cls, headers: Mapping[str, str], body: bytes) -> tuple[Message, ...]:
        """
        Parse a request whose body is a JSON array of objects, or one object: a message of each.

        :raises PayloadInvalid: any other body, or more than `harn.connectors.bodies.MOST_MESSAGES` in it.
        """
        bodies.check_charset(headers, body)
        return tuple(cls(headers, "json", bodies.read_object(text), text) for text in bodies.read_objects(body))

    @classmethod
    def form_or_each_of(cls, headers: Mapping[str, str], body: bytes) -> Message | tuple[Message, ...]:
        """
        Parse a form as one message, and any other body as `each_of`.

        :raises PayloadInvalid: see these.
        """
        return (cls.of if bodies.media_type(headers) == bodies.FORM else cls.each_of)(headers, body)

    def at(self, *path: str) -> Any:
        """Return the value at a path of the body; None if absent."""
        return self.document.at(*path)


Fact = Callable[[Message], V]
"""Returns something about a message; None if that is absent."""


class Member(Struct, frozen=True):
    """Reads a path of the body."""

    path: Path

    def __call__(self, message: Message) -> Any:
        """Return the value there; None if absent."""
        return message.document.at(*self.path)

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` where this reads it."""
        for step in self.path[:-1]:
            inner = document.get(step)
            document[step] = document = dict(inner) if isinstance(inner, dict) else {}
        document[self.path[-1]] = value

    def remove(self, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Remove the member from the body."""
        for step in self.path[:-1]:
            inner = document.get(step)
            if not isinstance(inner, dict):
                return
            document[step] = document = dict(inner)
        document.pop(self.path[-1], None)


class Header(Struct, frozen=True):
    """Reads a header, whose name is in lower case."""

    name: str

    def __call__(self, message: Message) -> str | None:
        """Return its value; None if absent."""
        return message.headers.get(self.name)

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` where this reads it."""
        headers[self.name] = value

    def remove(self, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Remove the header."""
        headers.pop(self.name, None)


class Dotted(Struct, frozen=True):
    """Joins two facts by a dot; the first alone where the second is absent."""

    first: Header | Member
    second: Header | Member

    def __call__(self, message: Message) -> str | None:
        """Return both, or the first; None if that is absent."""
        first, second = bodies.word(self.first(message)), bodies.word(self.second(message))
        return first if first is None or second is None else f"{first}.{second}"

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write both parts of ``value`` where this reads them."""
        first, dot, second = value.partition(".")
        self.first.put(first, headers, document)
        if dot:
            self.second.put(second, headers, document)
        else:
            self.second.remove(headers, document)


class First(Struct, frozen=True):
    """Returns the first of several facts that is a usable text, else a constant."""

    facts: tuple[Header | Member, ...]
    otherwise: str | None = None

    def __call__(self, message: Message) -> Any:
        """Return the first that is a text; what a body has there of another type, or too long, is passed over."""
        for fact in self.facts:
            found = bodies.word(fact(message))
            if found is not None:
                return found
        return self.otherwise

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` where this looks first."""
        if not self.facts:
            raise ValueError(f"the kind of every event is {self.otherwise}")
        self.facts[0].put(value, headers, document)


class Together(Struct, frozen=True):
    """Joins facts that identify a delivery together by a space; their digest where that is long, as URIs may be."""

    facts: tuple[Fact[Any], ...]

    def __call__(self, message: Message) -> str | None:
        """Return them; None where one is absent, empty or no text."""
        found = [fact(message) for fact in self.facts]
        if not all(isinstance(each, str) and each for each in found):
            return None
        joined = " ".join(found)
        return joined if bodies.word(joined) else bodies.body_digest(joined.encode("utf-8", "surrogatepass"))


class Milliseconds(Struct, frozen=True):
    """Reads a time in a member of the body that has milliseconds, Unix: when the request was sent, signed with it."""

    name: str

    def __call__(self, message: Message) -> float | None:
        """Return it in seconds, Unix; None if it is absent or malformed."""
        found = message.at(self.name)
        return found / 1000 if type(found) is int and abs(found) < 10**15 else None

    def put(self, value: float, document: dict[str, Any]) -> None:
        """Write a time (seconds, Unix) there."""
        document[self.name] = int(value * 1000)


def together(*facts: Fact[Any]) -> Together:
    """Make a fact that joins several, which identify a delivery together."""
    return Together(facts)


def member(*path: str) -> Member:
    """Make a fact that reads a path of the body."""
    return Member(path)


def header(name: str) -> Header:
    """Make a fact that reads a header."""
    return Header(name.lower())


def dotted(first: Header | Member, second: Header | Member) -> Dotted:
    """Make a fact that joins two by a dot, for example ``issues`` and ``opened``; the first alone if need be."""
    return Dotted(first, second)


def first_of(*facts: Header | Member, otherwise: str | None = None) -> First:
    """Make a fact that is the first of several that is a usable text, else a constant."""
    return First(facts, otherwise)


def nothing(message: Message) -> None:
    """Return None, for any message."""


class Lifted(dict[str, list[str]]):
    """Fields of events: names, and their paths in the body, in the form of an event; never changed."""

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str]]) -> Lifted:
        """Return such fields."""
        return cls({name: list(path) for name, path in fields.items()})


Fields = Mapping[str, Sequence[str]]
"""Fields of a message: names, and their paths in the body."""


def always(*names: str, **fields: Path) -> Fact[Fields]:
    """Make a function that returns the same fields for every message: members by these names, and paths by others."""
    lifted = Lifted.of({**{name: (name,) for name in names}, **fields})
    return lambda message: lifted


def snake_case(name: str) -> str:
    """Return a name in camel case as words in lower case, joined by ``_``: ``issue_label`` for ``IssueLabel``."""
    return _CAPITAL.sub("_", name).lower()


def json_answer(body: bytes, status: int = 200) -> Respond:
    """Return an answer in JSON, for a handshake or an acknowledgement."""
    return Respond(status=status, body=body, content_type="application/json")


class Example(Struct, frozen=True, kw_only=True):
    """A request that the provider might send: for tests, and for trying things out; it is signed when it is used."""

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})

    def of_kind(self, kind: str, fact: Fact[Any]) -> Example:
        """
        Return the example as a message of another kind.

        :param fact: how the provider's kinds are found.
        :raises ValueError: its kinds are not in one place; or the example is not a JSON object.
        """
        put = getattr(fact, "put", None)
        if put is None:
            raise ValueError("where this sender has the kind depends on the message; give a body of that kind")
        headers = {name.lower(): value for name, value in self.headers.items()}
        document = msgspec.json.decode(self.body)
        if not isinstance(document, dict):
            raise ValueError("the example is not a JSON object; give a body of that kind")
        put(kind, headers, document)
        return Example(body=canonical_json(document), headers=headers)
