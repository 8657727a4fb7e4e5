"""The rules of the installed plugins, for checking a manifest without a server."""

from __future__ import annotations

from harn.connectors.catalog import Catalog
from harn.destinations.catalog import DestinationCatalog
from harn.manifest.interfaces import Rules


def installed_rules() -> Rules:
    """Find every plugin, and return what the usable ones allow."""
    return Rules(Catalog.discover().providers, DestinationCatalog.discover().schemes)
