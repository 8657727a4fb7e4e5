"""The features of a server, in the order in which they are installed; it ends in the reverse order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from harn.dispatch import feature as dispatch
from harn.listener import feature as listener
from harn.options import ServeOptions
from harn.orchestrator import admin_api, maintenance, publish, reloading
from harn.rollout import feature as rollout
from harn.server import Server
from harn.watch import feature as watch


def features(options: ServeOptions, *, takes_over: bool = False) -> Iterator[Callable[[Server], None]]:
    """
    Yield the ``install`` function of each feature.

    :param takes_over: the server takes the place of another program.
    """
    yield publish.install
    yield dispatch.install
    yield partial(listener.install, takes_over=takes_over)
    yield reloading.install
    yield rollout.install
    yield maintenance.install
    if options.watch:
        yield watch.install
    yield admin_api.install
