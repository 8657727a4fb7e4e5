"""The credentials of the live generation."""

from __future__ import annotations

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials
from harn.auth.keys import KeyRing


class LiveCredentials:
    """
    Holds the authenticators of the current credentials.

    :param token: of the state directory, which the admin API accepts too.
    :param ring: the named keys, which the admin API accepts, too; routes of triggers do not.
    :ivar are_configured: there are any.
    """

    def __init__(self, token: bytes | None, ring: KeyRing | None = None) -> None:
        self._token = token
        self._ring = KeyRing() if ring is None else ring
        self.replace(Credentials())

    def replace(self, credentials: Credentials) -> None:
        """Accept these from now on, and no others."""
        self.are_configured = credentials.configured
        self._authenticator = Authenticator(credentials, ring=self._ring, accepts_named=False)
        self._admin_authenticator = Authenticator(credentials, self._token, self._ring)

    def authenticator(self) -> Authenticator:
        """Return the current one for routes of triggers."""
        return self._authenticator

    def admin_authenticator(self) -> Authenticator:
        """Return the current one for the admin API."""
        return self._admin_authenticator
