"""Preparing earlier generations for comparison: checks their manifests again. Blocks: for a thread; reads no store."""

from __future__ import annotations

from harn.errors import ManifestInvalid
from harn.history.differences import Recorded
from harn.manifest.interfaces import Rules
from harn.manifest.load import LoadedManifest, check_document
from harn.manifest.source import ManifestSource
from harn.vm.bundle import Bundle


def make_recorded(
    number: int,
    text: bytes,
    bundle: Bundle,
    path: str,
    rules: Rules,
    previous: LoadedManifest | None = None,
) -> Recorded:
    """
    Make the content of a generation comparable.

    :param text: the manifest's; ``path``: where the manifest lies.
    :param previous: a manifest that was loaded earlier: parts that the text shares with it are not checked again.
    :param rules: of the plugins that are installed now: they may not accept it any more.
    """
    try:
        loaded = check_document(ManifestSource.of(path, text), previous, rules)
    except ManifestInvalid:
        return Recorded(number=number, text=text, bundle=bundle, manifest=None)
    return Recorded(number=number, text=text, bundle=bundle, manifest=loaded.manifest)
