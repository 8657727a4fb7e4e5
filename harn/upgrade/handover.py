"""
What passes from an old program to the new one that takes its place: how it is started, what it inherits, what they say.

The new program is a child of the old one. It gets the listening socket, the state directory's locks and one end of a
socket pair; a variable of its environment says where. Over the pair it says `SERVES` when it could serve. When the old
one has said `YOURS`, and takes no more connections, it takes them, and says `TAKEN`: until then the old one can go on.
`MAIN` tells it that the service manager knows of it. That the pair closes tells either that the other is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import msgspec
from attrs import frozen
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from harn.errors import HarnError

VARIABLE = "HARN_HANDOVER"
LISTENING, LOCK, PAIR, DIRECTORY = 3, 4, 5, 6
"""Descriptors in the new program."""
SERVES, YOURS, TAKEN, MAIN = b"serves", b"yours", b"taken", b"main"
LONGEST_WORD = 64
_SCRIPT_HEAD = 1024


class HandoverFailed(HarnError):
    """A new program could not take over; the message says why."""


@frozen
class Program:
    """
    How a program is started.

    :ivar executable: its path; ``arguments`` begin with its name; ``directory`` is where it is started.
    """

    executable: str
    arguments: tuple[str, ...]
    directory: str

    @classmethod
    def of(cls, original: Sequence[str], interpreter: str, directory: str) -> Program:
        """
        Give what starts the program of this process again.

        A script that was started by its own first line is started by that again: with a new version, another
        interpreter may stand there.

        :param original: ``sys.orig_argv``; ``interpreter`` is ``sys.executable``.
        """
        if len(original) > 1 and _names_interpreter(os.path.join(directory, original[1]), original[0]):
            return cls(original[1], tuple(original[1:]), directory)
        return cls(interpreter, (interpreter, *original[1:]), directory)


def _names_interpreter(path: str, interpreter: str) -> bool:
    """Tell whether a file is a script that runs itself with this interpreter."""
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_SCRIPT_HEAD)
    except OSError:
        return False
    # Where the path is too long for a first line, the second one has it.
    return head.startswith(b"#!") and os.fsencode(interpreter) in b"\n".join(head.split(b"\n")[:2])


class Inheritance(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a new program inherits; what it does not know of it, it leaves alone.

    :ivar pid: of the old program; ``incarnation`` is the ``owner`` of the deliveries that it ends itself.
    :ivar listening: descriptors: of the listening socket; ``lock`` of the state directory's lock file; ``pair`` of its
        end; ``directory`` of the state directory itself, None when the old program has not locked that.
    """

    pid: int
    incarnation: int
    listening: int = LISTENING
    lock: int = LOCK
    pair: int = PAIR
    directory: int | None = None

    def encode(self) -> str:
        """Write it as the variable's value."""
        return msgspec.json.encode(self).decode("ascii")

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """
        Take it out of the environment; None when there is none.

        :raises HandoverFailed: the variable does not come from an old program, or what it names is not there.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        what_to_do = "the server sets it for the new program of an upgrade; take it out of the environment"
        try:
            found = msgspec.json.decode(text, type=cls)
        except ValueError as error:  # what msgspec raises is one
            raise HandoverFailed(f"{VARIABLE} cannot be read ({error}); {what_to_do}") from None
        for descriptor in (found.listening, found.lock, found.pair, found.directory):
            if descriptor is None:
                continue
            try:
                os.set_inheritable(descriptor, False)
            except (OSError, OverflowError):
                raise HandoverFailed(
                    f"{VARIABLE} names descriptor {descriptor}, which is not open; {what_to_do}"
                ) from None
        return found


class Pair(Protocol):
    """
    One end of the pair.

    :ivar heard: called with each word of the other; ``lost``: called once, when the other end is closed.
    """

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.heard = heard
        self.lost = lost
        self._received = b""

    @classmethod
    def on(cls, reactor: Any, descriptor: int, heard: Callable[[bytes], None], lost: Callable[[], None]) -> Pair:
        """
        Begin to listen to an end; the descriptor is taken over.

        :param reactor: an ``IReactorSocket``.
        :raises HandoverFailed: it is no end of a pair.
        """
        pair = cls(heard, lost)
        try:
            with socket.socket(fileno=descriptor) as end:
                end.setblocking(False)
                reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Only(pair))
        except OSError as error:
            raise HandoverFailed(f"descriptor {descriptor} is no end of a socket pair: {error.strerror}") from None
        return pair

    def say(self, word: bytes) -> None:
        """Say a word; to one that is gone nothing is said."""
        if self.transport is not None:
            self.transport.write(word + b"\n")

    def close(self) -> None:
        """Close this end."""
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Gather words. One that is endless is no word of ours."""
        *words, self._received = (self._received + data).split(b"\n")
        self._received = self._received[:LONGEST_WORD]
        for word in words:
            self.heard(word)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell that the other end is closed."""
        self.transport = None
        self.lost()


class _Only(Factory):
    """Gives the one protocol that there is."""

    noisy = False

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def buildProtocol(self, addr: IAddress | None) -> Pair:  # noqa: N802 - Twisted's name
        return self._pair
