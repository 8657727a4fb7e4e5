"""The credentials of the live generation."""

from __future__ import annotations

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials


class LiveCredentials:
    """
    Holds the authenticators of the current credentials.

    :param token: of the state directory, which the admin API accepts too.
    :ivar are_configured: there are any.
    """

    def __init__(self, token: bytes | None) -> None:
        self._token = token
        self.replace(Credentials())

    def replace(self, credentials: Credentials) -> None:
        """Accept these from now on, and no others."""
        self.are_configured = credentials.configured
        self._authenticator = Authenticator(credentials)
        self._admin_authenticator = Authenticator(credentials, self._token)

    def authenticator(self) -> Authenticator:
        """Return the current one for routes of triggers."""
        return self._authenticator

    def admin_authenticator(self) -> Authenticator:
        """Return the current one for the admin API."""
        return self._admin_authenticator
