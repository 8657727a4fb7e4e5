"""The schemes by their names in ``signature_scheme``."""

from __future__ import annotations

from collections.abc import Mapping

from harn.connectors import github, slack, stripe
from harn.connectors.signatures.interfaces import IScheme
from harn.connectors.signatures.standard import StandardScheme

SCHEMES: Mapping[str, IScheme] = {
    scheme.name: scheme for scheme in (StandardScheme(), stripe.SIGNATURE, github.SIGNATURE, slack.SIGNATURE)
}
