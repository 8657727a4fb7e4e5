"""The interface of a source of secrets."""

from __future__ import annotations

from zope.interface import Attribute, Interface

from harn.model.references import SecretReference


class ISecretProvider(Interface):
    """One source of secrets. Its methods may block: they are called in a thread."""

    name: str = Attribute("As ``HARN_SECRET_PROVIDERS`` names it, for example ``env``.")

    def resolve(reference: SecretReference) -> bytes | None:
        """
        Return the value, never empty, or None where this provider does not have it.

        :raises SecretUnavailable: it should have the value, but cannot read it (an unreadable file, an empty value).
        """

    def advice(reference: SecretReference) -> str:
        """Return how to add it to this provider, for example ``set HARN_SECRET_GITHUB_WEBHOOK_SECRET``."""

    def files() -> frozenset[str]:
        """Return the absolute paths of the files read or looked for so far."""
