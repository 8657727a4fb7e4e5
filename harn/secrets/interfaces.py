"""What the chain asks of each place that secrets come from."""

from __future__ import annotations

from zope.interface import Attribute, Interface

from harn.model.references import SecretReference


class ISecretProvider(Interface):
    """One place that secrets come from. Its methods may block: they are called in a thread."""

    name: str = Attribute("As ``HARN_SECRET_PROVIDERS`` names it, for example ``env``.")

    def resolve(reference: SecretReference) -> bytes | None:
        """
        Give the value, never empty, or None where this provider does not have it.

        :raises SecretUnavailable: it should have it, but cannot give it (a file that cannot be read, an empty value).
        """

    def advice(reference: SecretReference) -> str:
        """Say what to do so that this provider has it, for example ``set HARN_SECRET_GITHUB_WEBHOOK_SECRET``."""

    def files() -> frozenset[str]:
        """Absolute paths of the files that it has looked at so far."""
