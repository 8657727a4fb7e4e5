"""The interface of a server for an upgrade in place, as the old program and as the new one."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from harn.upgrade.upgrade import NewProcess


class IServerLife(Interface):
    """Whether the server serves, and when it ends."""

    is_ending: bool = Attribute("It was asked to end.")

    def serve() -> None:
        """Enable requests from now on. An exception fails the start."""

    def handed_over(new_process: NewProcess) -> None:
        """Called in the step in which the new program has taken over: end what this server has, and no more."""

    def not_handed_over() -> None:
        """Called when the upgrade failed and this server continues."""


class IChannelUser(Interface):
    """The object that receives the messages of the other program."""

    def message_received(message: bytes) -> None:
        """Called with each message."""

    def channel_lost() -> None:
        """Called once, when the other end is closed."""


class IServing(Interface):
    """The part of the interface that both programs use."""

    def pause_listening() -> None:
        """Leave new connections to the socket's queue, or to the other program."""

    def resume_listening() -> None:
        """Accept connections again."""

    def own_state_file() -> None:
        """Write the state file from now on."""

    def save_state() -> Awaitable[object]:
        """Write the state file; a failure is logged, not raised."""


class IOldServer(IServing):
    """The server that hands over."""

    incarnation: int = Attribute("The ``owner`` of its deliveries in the store.")
    status: str = Attribute("The live generation, in one line.")
    listening_descriptor: int = Attribute("The descriptor of the listening socket.")

    def exclusive() -> AbstractAsyncContextManager[None]:
        """
        Keep reloads out.

        :raises ShuttingDown: the server ends.
        """

    def disown_state_file() -> Awaitable[None]:
        """Leave the state file to the new program; fires when nothing is being written."""

    def mark_numbers_unknown() -> None:
        """Make the next reload call `read_numbers` first: the new program may have reserved some."""

    def read_numbers() -> Awaitable[None]:
        """
        Read from the store which numbers of generations and versions were given.

        :raises EventLogUnavailable: the next reload tries it again.
        """


class INewServer(IServing):
    """The server that takes over."""

    def open_port(descriptor: int) -> Awaitable[str]:
        """
        Listen on an inherited socket; give the URL.

        :raises ListenerUnusable: it cannot be listened on.
        """

    def read_gates() -> Awaitable[None]:
        """Read again which triggers are paused, and which circuits are open: the old program may have changed that."""

    def read_rollouts() -> Awaitable[None]:
        """Read again the decisions of the old program about rollouts while this one started."""

    def begin_rollouts() -> None:
        """Continue rollouts, as the only server that decides about them."""

    def note_serving() -> Awaitable[None]:
        """Record durably that the first generation serves."""

    def recover(leaving: int | None, gone: int | None) -> Awaitable[int]:
        """
        Take over deliveries that other servers left unfinished; give their count.

        :param leaving: the incarnation of a server that still runs and finishes its own.
        :param gone: the incarnation of a server whose process has ended.
        :raises EventLogUnavailable: the store cannot be used now.
        """

    def retry_start_hooks() -> None:
        """Run again the start hooks that failed."""
