"""The secrets that alerts are sent with: their values are checked with the others, and given to who sends alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harn.connectors.signatures import decode_standard_secret
from harn.manifest.alerts import fault_of_url
from harn.manifest.load import LoadedManifest
from harn.manifest.model import Manifest, alert_secrets
from harn.model.problem import Problem


def values_for_alerts(manifest: Manifest, secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the values that sending the manifest's alerts needs, by reference."""
    return {each.reference: secrets[each.reference] for each in alert_secrets(manifest)}


def check_alert_secrets(loaded: LoadedManifest, secrets: Mapping[str, bytes]) -> Iterator[Problem]:
    """
    Yield a problem for each value that no message could be sent with; none quotes it.

    :param secrets: value by reference, of those that resolve.
    """
    for each in alert_secrets(loaded.manifest):
        value = secrets.get(each.reference)
        fault = None if value is None else _fault(each.key, value)
        if fault is not None:
            message = f"the value of secret {each.reference} cannot be used: {fault}"
            yield loaded.problem(each.site.trigger_id, each.site.key, message, "store another value")


def _fault(key: str, value: bytes) -> str | None:
    """Return what is wrong with the value of a secret, None when nothing is."""
    if key == "url_secret":
        return fault_of_url(value.decode("utf-8", "replace"))
    if key != "signing_secret":
        return None
    try:
        decode_standard_secret(value)
    except ValueError as error:
        return str(error)
    return None
