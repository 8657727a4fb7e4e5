"""MCP resources: the live manifest, the generations and the deliveries of a server, each read by its operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from harn.cli.client import AdminClient, ask
from harn.cli.mcp.tools import as_text
from harn.deliveries.operations import list_deliveries, show_delivery
from harn.errors import HarnError
from harn.history.operations import ShowGeneration, list_generations, show_generation
from harn.operations.http import read_object
from harn.operations.model import Operation
from harn.reload.operations import ShowLive, show_live

SCHEME = "harn://"
MANIFEST = "manifest"
JSON, TOML = "application/json", "application/toml"


class ResourceUnknown(HarnError):
    """No resource has this URI."""


class Resource(Struct, frozen=True, kw_only=True):
    """
    One resource, or all that a template names.

    :ivar uri: ``harn://...``; a template has the name of its variable in braces.
    """

    uri: str
    name: str
    description: str
    mime_type: str = JSON

    @property
    def is_template(self) -> bool:
        """Return whether it is a template."""
        return "{" in self.uri


RESOURCES = (
    Resource(
        uri=SCHEME + MANIFEST,
        name="manifest",
        description="The manifest of the live generation.",
        mime_type=TOML,
    ),
    Resource(uri=SCHEME + "generations", name="generations", description="The generations that served, newest first."),
    Resource(
        uri=SCHEME + "generations/{generation}",
        name="generation",
        description="One generation with its manifest and its modules, by its number.",
    ),
    Resource(uri=SCHEME + "deliveries", name="deliveries", description="The newest deliveries, and how each stands."),
    Resource(
        uri=SCHEME + "deliveries/{event_id}",
        name="delivery",
        description="One delivery: its timeline, its attempts with their tracebacks, its event without secrets.",
    ),
)

LISTS: Mapping[str, Operation[Any, Any, Any]] = {"generations": list_generations, "deliveries": list_deliveries}
"""Operations by the URI without its scheme."""
TEMPLATES: Mapping[str, tuple[Operation[Any, Any, Any], str]] = {
    "generations": (show_generation, "generation"),
    "deliveries": (show_delivery, "event_id"),
}
"""Operations, and the parameter that the rest of the URI is, by the first part of the URI without its scheme."""


class ResourceContent(Struct, frozen=True, kw_only=True):
    """The content of a resource."""

    text: str
    mime_type: str


def read_resource(client: AdminClient, uri: str) -> ResourceContent:
    """
    Read a resource. Blocks.

    :raises ResourceUnknown: no resource has this URI; says which there are.
    :raises PayloadInvalid: its variable is wrong.
    :raises HarnError: the server refused it, or did not answer: see `harn.cli.client.ask`.
    """
    head, _, rest = uri.removeprefix(SCHEME).partition("/")
    if uri.startswith(SCHEME):
        if head == MANIFEST and not rest:
            return ResourceContent(text=_live_manifest(client), mime_type=TOML)
        if rest and head in TEMPLATES:
            operation, variable = TEMPLATES[head]
            return _asked(client, operation, {variable: unquote(rest)})
        if not rest and head in LISTS:
            return _asked(client, LISTS[head], {})
    there = ", ".join(each.uri for each in RESOURCES)
    raise ResourceUnknown(f"no such resource: must be one of {there}, got {uri!r}")


def _asked(client: AdminClient, operation: Operation[Any, Any, Any], values: Mapping[str, str]) -> ResourceContent:
    return ResourceContent(
        text=as_text(ask(client, operation, read_object(operation, values)).document), mime_type=JSON
    )


def _live_manifest(client: AdminClient) -> str:
    live = ask(client, show_live, ShowLive()).result.generation
    text: str = ask(client, show_generation, ShowGeneration(generation=live)).result.manifest
    return text
