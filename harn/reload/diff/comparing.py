"""Earlier generations made fit to be compared: their manifests checked anew. Reads no store; for a thread."""

from __future__ import annotations

from collections.abc import Mapping

from harn.errors import ManifestInvalid
from harn.manifest.interfaces import ProviderRules
from harn.manifest.load import check_document
from harn.manifest.source import ManifestSource
from harn.reload.diff.differences import Recorded
from harn.vm.bundle import Bundle


def make_recorded(number: int, text: bytes, bundle: Bundle, path: str, rules: Mapping[str, ProviderRules]) -> Recorded:
    """
    Make the content of a generation comparable.

    :param text: the manifest's; ``path``: where the manifest lies.
    :param rules: of the providers that are installed now, by provider: they may not accept it any more.
    """
    try:
        loaded = check_document(ManifestSource.of(path, text), None, rules)
    except ManifestInvalid:
        return Recorded(number=number, text=text, bundle=bundle, manifest=None)
    return Recorded(number=number, text=text, bundle=bundle, manifest=loaded.manifest)
