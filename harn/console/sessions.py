"""Sessions of the console: who has signed in, until when, and the outcomes of their actions, for their next page."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from attrs import define, field, frozen

from harn.auth.authenticator import Identity
from harn.clocks import WallTime

LIFETIME = 12 * 3600.0
"""Seconds after which a session ends."""
MOST = 1000
"""Sessions at once: above it, the oldest ends."""
SIZE = 32
"""Bytes of chance in the id of a session, and in its token."""
MOST_OUTCOMES = 20
"""Outcomes that one session keeps."""


@frozen(kw_only=True)
class Outcome:
    """
    The outcome of an action, for the page that the browser is sent to.

    :ivar text: one sentence; ``is_bad``: it reports a failure.
    :ivar result: the result of the operation, where the page shows more of it.
    """

    text: str
    is_bad: bool = False
    result: Any = field(default=None, repr=False)


@define(kw_only=True, eq=False)
class Session:
    """
    One session.

    :ivar key: the API key, which is checked again at each request: a session ends with its key. Kept in memory only.
    :ivar csrf: the token that every form of this session carries.
    :ivar ends_at: seconds, Unix.
    """

    key: str = field(repr=False)
    identity: Identity
    csrf: str = field(repr=False)
    ends_at: float
    _outcomes: OrderedDict[str, Outcome] = field(factory=OrderedDict, init=False)

    def keep(self, outcome: Outcome) -> str:
        """Keep an outcome, and return its name; the oldest is dropped above `MOST_OUTCOMES`."""
        name = token_urlsafe(6)
        self._outcomes[name] = outcome
        while len(self._outcomes) > MOST_OUTCOMES:
            self._outcomes.popitem(last=False)
        return name

    def outcome(self, name: str) -> Outcome | None:
        """Return the outcome of this name, if it is kept."""
        return self._outcomes.get(name)

    def is_token(self, given: str) -> bool:
        """Return whether a form carries this session's token; compared in constant time."""
        return compare_digest(self.csrf.encode("ascii"), given.encode("utf-8", "replace"))


class Sessions:
    """The sessions of one server, by the digest of their ids: an id is known to the browser alone."""

    def __init__(self, wall: WallTime) -> None:
        self._wall = wall
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key: str, identity: Identity) -> tuple[str, Session]:
        """Begin a session; return its id, and the session."""
        now = self._wall.seconds()
        for digest in [digest for digest, each in self._sessions.items() if now >= each.ends_at]:
            del self._sessions[digest]
        while len(self._sessions) >= MOST:
            self._sessions.popitem(last=False)
        session_id = token_urlsafe(SIZE)
        session = Session(key=key, identity=identity, csrf=token_urlsafe(SIZE), ends_at=now + LIFETIME)
        self._sessions[_digest(session_id)] = session
        return session_id, session

    def find(self, session_id: str) -> Session | None:
        """Return the session of an id, unless it has ended."""
        session = self._sessions.get(_digest(session_id))
        if session is not None and self._wall.seconds() >= session.ends_at:
            self.end(session_id)
            return None
        return session

    def end(self, session_id: str) -> None:
        """End a session, if there is one of this id."""
        self._sessions.pop(_digest(session_id), None)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).digest()
