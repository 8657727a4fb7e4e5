"""Sessions of the console: who has signed in, until when, and the outcomes of their actions, for their next page."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any

from attrs import define, field, frozen

from harn.auth.authenticator import Identity
from harn.clocks import WallTime

LIFETIME = 12 * 3600.0
"""Seconds after which a session ends."""
MOST = 1000
"""The most sessions; one more ends the oldest session of the key that has most of them."""
MOST_OF_KEY = 50
"""The most sessions of one key; one more ends its oldest."""
SIZE = 32
"""Bytes of chance in the id of a session, and in its token."""
MOST_OUTCOMES = 20
"""Outcomes that one session keeps."""


@frozen(kw_only=True)
class Outcome:
    """
    The outcome of an action, for the page that the browser is sent to.

    :ivar text: one sentence.
    :ivar is_bad: it reports a failure.
    :ivar result: the result of the operation, where the page shows more of it.
    :ivar at: when it was kept (seconds, Unix).
    """

    text: str
    is_bad: bool = False
    at: float = 0.0
    result: Any = field(default=None, repr=False)


@define(kw_only=True, eq=False)
class Session:
    """
    One session.

    :ivar name: the digest of its id: the id is known to the browser alone.
    :ivar key: the digest of the API key, which is checked again at each request: a session ends with its key.
    :ivar csrf: the token that every form of this session carries.
    :ivar ends_at: seconds, Unix.
    """

    name: bytes = field(repr=False)
    key: bytes = field(repr=False)
    identity: Identity
    csrf: str = field(repr=False)
    ends_at: float
    _outcomes: OrderedDict[str, Outcome] = field(factory=OrderedDict, init=False)
    _unseen: set[str] = field(factory=set, init=False)

    def keep(self, outcome: Outcome) -> str:
        """Keep an outcome, and return its name; the oldest is dropped above `MOST_OUTCOMES`."""
        name = token_urlsafe(6)
        self._outcomes[name] = outcome
        self._unseen.add(name)
        while len(self._outcomes) > MOST_OUTCOMES:
            self._unseen.discard(self._outcomes.popitem(last=False)[0])
        return name

    def outcome(self, name: str) -> Outcome | None:
        """Return the outcome of this name, if it is kept."""
        return self._outcomes.get(name)

    def sees_first(self, name: str) -> bool:
        """Return whether an outcome is kept and asked for the first time by this method: once for each action."""
        is_first = name in self._unseen
        self._unseen.discard(name)
        return is_first

    def is_token(self, given: str) -> bool:
        """Return whether a form carries this session's token; compared in constant time."""
        return compare_digest(self.csrf.encode("ascii"), given.encode("utf-8", "replace"))


class Sessions:
    """The sessions of one server, by name."""

    def __init__(self, wall: WallTime) -> None:
        self._wall = wall
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key: bytes, identity: Identity) -> tuple[str, Session]:
        """
        Begin a session; return its id, and the session.

        :param key: the digest of the API key.
        """
        now = self._wall.seconds()
        for each in [each for each in self._sessions.values() if now >= each.ends_at]:
            self.end(each)
        self._make_room(key)
        session_id = token_urlsafe(SIZE)
        session = Session(
            name=_digest(session_id), key=key, identity=identity, csrf=token_urlsafe(SIZE), ends_at=now + LIFETIME
        )
        self._sessions[session.name] = session
        return session_id, session

    def _make_room(self, key: bytes) -> None:
        """End a session where a further one of this key would be one too many: of no key that has few of them."""
        number = Counter(each.key for each in self._sessions.values())
        if number[key] < MOST_OF_KEY and len(self._sessions) < MOST:
            return
        most = key if number[key] >= MOST_OF_KEY else number.most_common(1)[0][0]
        self.end(next(each for each in self._sessions.values() if each.key == most))

    def find(self, session_id: str) -> Session | None:
        """Return the session of an id, unless it has ended."""
        session = self._sessions.get(_digest(session_id))
        return session if session is not None and self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Return whether a session continues; one whose time is over ends."""
        if self._wall.seconds() >= session.ends_at:
            self.end(session)
        return session.name in self._sessions

    def end(self, session: Session) -> None:
        """End a session, if it continues."""
        self._sessions.pop(session.name, None)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).digest()
