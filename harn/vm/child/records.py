"""Records of handlers' ``logging``: each becomes a record of the server's log, at its level, with its call's ids."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from harn.vm.child.calls import CURRENT

if TYPE_CHECKING:
    from harn.vm.child.session import ChildSession

_USUAL = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
"""Attributes of any record; what a handler adds with ``extra`` is beside them."""
_FORMAT = logging.Formatter()
_set = [logging.INFO]
"""The level that `set_level` set last."""


def level_of(number: int) -> str:
    """Return the level of the server's log for a level of ``logging``."""
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"


class SessionHandler(logging.Handler):
    """
    Passes records to the server, with the ids of the call whose code logs.

    :ivar session: gets those of no call; None: they are shown as if this handler were not there, since the process is
        the server itself.
    """

    def __init__(self, session: ChildSession | None) -> None:
        super().__init__()
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record: message, traceback, logger, and the fields of ``extra``."""
        call = CURRENT.get()
        session = self.session if call is None else call.session
        if session is None:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + _FORMAT.formatException(record.exc_info)
            if record.stack_info:
                text += "\n" + record.stack_info
        except Exception as error:  # of an argument that does not fit the message, for example
            text = f"{record.msg!r} with {len(record.args or ())} arguments cannot be logged: {type(error).__name__}"
        extra: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _USUAL}
        session.log(call, level_of(record.levelno), text, {"logger": record.name, **extra})


def capture_records(session: ChildSession | None) -> None:
    """Send the records of all loggers of this process to the server; see `SessionHandler` and `set_level`."""
    root = logging.getLogger()
    root.addHandler(SessionHandler(session))
    root.setLevel(_set[0])


def set_level(level: str) -> None:
    """
    Drop records below what the server logs, unless the handlers' own code has set the level.

    :param level: of the server's log; ``debug`` lets everything through, all others let ``info`` through.
    """
    root = logging.getLogger()
    if root.level == _set[0]:
        _set[0] = logging.DEBUG if level == "debug" else logging.INFO
        root.setLevel(_set[0])
