"""
Senders whose attributes are members of the body in one mode, and headers in another, with the data as the body.

A message of the first mode is recognized by its content type; a content type of its own has several in one body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from msgspec import Raw, Struct

from harn.connectors.bodies import media_type, word
from harn.connectors.messages import Message
from harn.errors import PayloadInvalid


class Modes(Struct, frozen=True, kw_only=True):
    """
    The modes of one sender.

    :ivar structured: the beginning of the content types whose body has the attributes.
    :ivar batch: the beginning of those whose body has several events.
    :ivar prefix: of the header of each attribute, whose value is percent-encoded there.
    :ivar required: the attributes that each message must have, as texts.
    """

    structured: str
    batch: str
    prefix: str
    required: tuple[str, ...] = ()

    def is_structured(self, headers: Mapping[str, str]) -> bool:
        """Return whether the body has the attributes."""
        return media_type(headers).startswith(self.structured)

    def read(self, headers: Mapping[str, str], body: bytes) -> Message | tuple[Message, ...]:
        """
        Parse a request of any mode.

        :raises PayloadInvalid: see `Message.of`, `Message.each_of` and `Message.any_of`; or a required attribute is
            missing, empty, or no text.
        """
        if media_type(headers).startswith(self.batch):
            messages = Message.each_of(headers, body)
            for each in messages:
                self._check(each)
            return messages
        message = Message.of(headers, body) if self.is_structured(headers) else Message.any_of(headers, body)
        self._check(message)
        return message

    def _check(self, message: Message) -> None:
        missing = [name for name in self.required if not _is_text(self.attribute(name)(message))]
        if missing:
            place = "the body" if self.is_structured(message.headers) else f"the headers ({self.prefix}...)"
            raise PayloadInvalid(
                f"{place} must have the attributes {', '.join(self.required)}; missing: {', '.join(missing)}"
            )

    def attribute(self, name: str) -> Attribute:
        """Make a fact that reads an attribute."""
        return Attribute(name, self)

    def values(self, message: Message, names: tuple[str, ...]) -> dict[str, Any]:
        """Return these attributes, and those of other names that are headers."""
        found: dict[str, Any] = {}
        if not self.is_structured(message.headers):
            start = len(self.prefix)
            found = {
                name[start:]: unquote(value) for name, value in message.headers.items() if name.startswith(self.prefix)
            }
        return found | {name: word(self.attribute(name)(message)) for name in names}


def _is_text(value: Any) -> bool:
    """Return whether an attribute is a text with something in it; a long one is its JSON."""
    return bool(value) and (isinstance(value, str) or (isinstance(value, Raw) and bytes(memoryview(value)[:1]) == b'"'))


class Attribute(Struct, frozen=True):
    """Reads an attribute, in the mode of the message."""

    name: str
    modes: Modes

    def __call__(self, message: Message) -> Any:
        """Return its value; None if absent."""
        if self.modes.is_structured(message.headers):
            return message.at(self.name)
        return unquote(message.headers.get(self.modes.prefix + self.name, "")) or None

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` where this reads it."""
        if self.modes.is_structured(headers):
            document[self.name] = value
        else:
            headers[self.modes.prefix + self.name] = quote(value)
