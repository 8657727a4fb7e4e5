"""The assignment of a worker by its supervisor: its number and descriptors; and the options that follow from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

import msgspec
from attrs import evolve

from harn.errors import HarnError
from harn.options import ServeOptions
from harn.systemd import PASSED_COUNT, PASSED_NAMES, PASSED_PID, SOCKET, WATCHDOG_INTERVAL, WATCHDOG_PID

VARIABLE = "HARN_WORKER"
LISTENING, CHANNEL = 3, 4
"""Descriptors in the worker."""
_OF_SUPERVISOR = frozenset((PASSED_COUNT, PASSED_PID, PASSED_NAMES, SOCKET, WATCHDOG_INTERVAL, WATCHDOG_PID))
"""Environment variables that hold for the supervisor alone."""


class NotAssigned(HarnError):
    """The environment says that this process is a worker, and it cannot be one."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """
    The place of a worker. Unknown members of the JSON text are ignored: another version wrote it.

    :ivar number: from 1.
    :ivar listening: the descriptor of the listening socket, which all workers share.
    :ivar channel: the descriptor of its end of the channel to the supervisor.
    :ivar silence: seconds of silence on the channel after which the supervisor kills it; 0 for no limit.
    """

    number: int
    listening: int = LISTENING
    channel: int = CHANNEL
    silence: float = 0.0

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Assignment | None:
        """
        Read and remove it from the environment; None if it is not set.

        :raises NotAssigned: the variable does not come from a supervisor, or a descriptor in it is not open.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        what_to_do = "`harn serve --workers` sets it for each worker; take it out of the environment"
        try:
            found = msgspec.json.decode(text, type=cls)
            for descriptor in (found.listening, found.channel):
                os.set_inheritable(descriptor, False)
        except (ValueError, OSError, OverflowError) as error:  # msgspec's errors are ValueErrors
            raise NotAssigned(
                f"{VARIABLE} must be what a supervisor sets, got {text!r} ({error}); {what_to_do}"
            ) from None
        return found

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the worker, whose supervisor has ``environ``."""
        kept = {name: value for name, value in environ.items() if name not in _OF_SUPERVISOR}
        return {**kept, VARIABLE: msgspec.json.encode(self).decode("ascii")}

    def options(self, given: ServeOptions) -> ServeOptions:
        """
        Return the options of the worker, whose supervisor was given ``given``.

        Its own pages, where they have an address of their own, are on one that no other worker has: what they show is
        of one server, and so are the console's sessions. Without such an address there is no console.
        """
        return evolve(
            given,
            workers=1,
            state_dir=worker_directory(given.state_dir, self.number),
            shared_dir=given.state_dir,
            admin_bind=admin_of(given.admin_bind, self.number),
            watch=given.watch and self.number == 1,
            no_console=given.no_console or given.admin_bind is None,
        )


def name_of(number: int) -> str:
    """Return the name of a worker."""
    return f"worker-{number}"


def worker_directory(state_dir: str, number: int) -> str:
    """Return the state directory of a worker."""
    return os.path.join(state_dir, name_of(number))


def admin_of(asked: tuple[str, int] | str | None, number: int) -> tuple[str, int] | str | None:
    """
    Return the address of the own pages of a worker: the first has that which was asked for.

    The others have the ports that follow, or the path with their number behind a dot.
    """
    if asked is None or number == 1:
        return asked
    if isinstance(asked, str):
        return f"{asked}.{number}"
    host, port = asked
    return host, port + number - 1 if port else 0
