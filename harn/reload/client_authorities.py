"""
The files that ``client_ca`` names: certificates of the authorities that must have signed a client's certificate.

They are read again on each reload. Reading blocks, so it runs in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography import x509
from msgspec import Struct, field

from harn.files import read_regular
from harn.manifest.load import LoadedManifest
from harn.model.problem import Problem

LARGEST = 1024 * 1024
"""The largest size of a file in bytes."""


class ClientAuthorities(Struct, frozen=True):
    """
    The certificates of authorities that a manifest names.

    :ivar certificates: the content of each file (PEM), by its name in the manifest.
    :ivar paths: the absolute paths of the files.
    """

    certificates: Mapping[str, bytes] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


def read_authorities(loaded: LoadedManifest, problems: list[Problem]) -> ClientAuthorities:
    """Read every file that a ``client_ca`` names once; add a problem for each trigger whose file cannot be used."""
    folder = os.path.dirname(loaded.manifest.path)
    certificates: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    paths: list[str] = []
    for spec in loaded.manifest.triggers.values():
        name = spec.client_ca
        if name is None:
            continue
        if name not in certificates and name not in faults:
            path = os.path.join(folder, name)
            paths.append(path)
            try:
                certificates[name] = read_certificates(path)
            except ValueError as error:
                faults[name] = str(error)
        if name in faults:
            hint = "write the path of a PEM file with the certificate of the authority, relative to the manifest"
            problems.append(loaded.problem(spec.id, "client_ca", faults[name], hint))
    return ClientAuthorities(certificates, tuple(paths))


def read_certificates(path: str) -> bytes:
    """
    Return the text of a file of certificates.

    :raises ValueError: the file cannot be read, or holds no certificate.
    """
    try:
        text = read_regular(path, LARGEST)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    try:
        x509.load_pem_x509_certificates(text)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM, or a damaged one") from None
    return text
