"""Where a command finds its server: the one that its state directory tells of, or the one it was pointed to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import frozen

from harn.auth.credentials import Credentials
from harn.cli.client import AdminClient
from harn.errors import HarnError
from harn.orchestrator.options import MANIFEST, STATE_DIR, absolute, value_of
from harn.orchestrator.running import running_url


class NoServer(HarnError):
    """No server runs on the state directory."""


@frozen(kw_only=True)
class Place:
    """
    Which manifest and state directory a command is about.

    :ivar manifest: as it was given.
    :ivar state_dir: absolute; ``state_dir_name`` as it was given.
    """

    manifest: str
    state_dir: str
    state_dir_name: str

    @classmethod
    def told(cls, config: str | None, state_dir: str | None, environ: Mapping[str, str]) -> Place:
        """Put together what flags, environment and defaults say."""
        name = value_of(STATE_DIR, {"state_dir": state_dir}, environ)
        return cls(
            manifest=value_of(MANIFEST, {"config": config}, environ),
            state_dir=absolute(os.getcwd(), name),
            state_dir_name=name,
        )

    def server_url(self) -> str | None:
        """Give the URL of the server that runs here, None if none does."""
        return running_url(self.state_dir)

    def needed_url(self) -> str:
        """
        Give the URL of the server that runs here.

        :raises NoServer: none does; says how to start one.
        """
        url = self.server_url()
        if url is None:
            raise NoServer(
                f"no server runs on {self.state_dir_name}; start one with: "
                f"harn orchestrator serve --config {self.manifest} --state-dir {self.state_dir_name}"
            )
        return url


def make_client(
    url: str, environ: Mapping[str, str], cacert: str | None, insecure: bool, timeout: float
) -> AdminClient:
    """
    Make a client that shows the credentials of the environment.

    :raises SecretUnavailable: a file of credentials cannot be read.
    """
    credentials = Credentials.from_environment(environ)
    return AdminClient(url=url, credentials=credentials, timeout=timeout, cacert=cacert, insecure=insecure)
