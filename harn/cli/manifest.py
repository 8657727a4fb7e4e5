"""``harn manifest``: what can be said about manifests in general."""

from __future__ import annotations

import json

import click


@click.group()
def manifest() -> None:
    """Help with writing a manifest."""


@manifest.command()
def schema() -> None:
    """Print the JSON schema of a manifest, for editors."""
    from harn.connectors.catalog import Catalog
    from harn.manifest.json_schema import manifest_json_schema

    click.echo(json.dumps(manifest_json_schema(Catalog.discover().providers), indent=2))
