"""Secrets from the system's keyring, by way of the optional package ``keyring``."""

from __future__ import annotations

import importlib
from typing import Any

from zope.interface import implementer

from harn.errors import SecretUnavailable
from harn.model.references import SecretReference
from harn.secrets.interfaces import ISecretProvider


@implementer(ISecretProvider)
class KeyringSecrets:
    """
    ``keyring``: the service is the namespace of this installation, the user name is the reference.

    The package is imported on first use: it is an extra, and its import takes longer than all of harn's.
    """

    name = "keyring"

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._keyring: Any = None

    def resolve(self, reference: SecretReference) -> bytes | None:
        """Query the keyring, which may be locked or absent."""
        try:
            if self._keyring is None:
                self._keyring = importlib.import_module("keyring")
            value = self._keyring.get_password(self._namespace, str(reference))
        except ImportError as error:
            raise SecretUnavailable(
                "HARN_SECRET_PROVIDERS names keyring, which is not installed; "
                "run: pip install 'harn[keyring]', or take it out of HARN_SECRET_PROVIDERS"
            ) from error
        except Exception as error:
            # Back ends raise classes of their own. The class is enough, and the text might quote the value.
            raise SecretUnavailable(f"the keyring cannot be read for {reference}: {type(error).__name__}") from error
        if value == "":
            raise SecretUnavailable(f"the keyring holds an empty value for {reference}; {self.advice(reference)}")
        return None if value is None else str(value).encode("utf-8")

    def advice(self, reference: SecretReference) -> str:
        """Return the command that stores it."""
        return f"run: keyring set {self._namespace} {reference}"

    def files(self) -> frozenset[str]:
        """Return an empty set: the keyring's own files are not known."""
        return frozenset()
