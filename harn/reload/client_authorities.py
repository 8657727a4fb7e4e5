"""
``client_ca``: files of the authorities whose client certificates triggers require, read again on each reload.

Blocks: for a thread.
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
"""Bytes of the largest file."""


class ClientAuthorities(Struct, frozen=True):
    """
    Certificates of authorities (PEM), by the name that the manifest has for their file.

    :ivar paths: absolute, of the files.
    """

    certificates: Mapping[str, bytes] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


def read_authorities(loaded: LoadedManifest, problems: list[Problem]) -> ClientAuthorities:
    """Read the file of every ``client_ca``, each once; add a problem for each trigger whose file cannot be used."""
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

    :raises ValueError: it cannot be read, or holds none.
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
