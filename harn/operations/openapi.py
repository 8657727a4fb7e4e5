"""The admin API as an OpenAPI 3.1 document, made from the operations of the server, and the operation that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import harn
from harn.operations.model import Caller, Get, Operation, Result, Role, operation
from harn.operations.parameters import In, Parameter, Parameters
from harn.operations.values import schema_of_written

ROOT = "/admin"
_REF = "#/components/schemas/{name}"


class ShowApi(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class ApiInfo(Result, frozen=True, kw_only=True):
    """The subject of the document."""

    title: str
    version: str


class Components(Result, frozen=True, kw_only=True):
    """Schemas by name, and the ways to authenticate."""

    schemas: dict[str, Any]
    securitySchemes: dict[str, Any]  # noqa: N815 - OpenAPI's name


class OpenApi(Result, frozen=True, kw_only=True):
    """An OpenAPI document."""

    openapi: str
    info: ApiInfo
    paths: Annotated[dict[str, Any], Meta(description="By path and method.")]
    components: Components
    security: tuple[dict[str, tuple[str, ...]], ...]


class Problem(Result, frozen=True, kw_only=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "HMAC-SHA256 timestamp=<Unix seconds>,signature=<base64>",
    },
}


@operation("api.show", role=Role.READ, route=Get("/openapi.json"))
async def show_api(operations: Iterable[Operation[Any, Any, Any]], caller: Caller, wanted: ShowApi) -> OpenApi:
    """Show the admin API as an OpenAPI document."""
    return describe_api(tuple(operations))


def describe_api(operations: tuple[Operation[Any, Any, Any], ...]) -> OpenApi:
    """Return the document of these operations."""
    types = [kind for each in operations for kind in (each.parameters, each.result)]
    _, schemas = msgspec.json.schema_components((*types, Problem), schema_hook=schema_of_written, ref_template=_REF)
    paths: dict[str, Any] = {}
    for each in operations:
        fields = schemas[each.parameters.__name__]["properties"]
        paths.setdefault(ROOT + each.route.path, {})[each.route.method.lower()] = _entry(each, fields)
    for name in {each.parameters.__name__ for each in operations}:
        del schemas[name]  # they stand with their operations, each in its place
    return OpenApi(
        openapi="3.1.0",
        info=ApiInfo(title="harn admin API", version=harn.__version__),
        paths=paths,
        components=Components(schemas=schemas, securitySchemes=SECURITY),
        security=tuple({name: ()} for name in SECURITY),
    )


def _entry(operation: Operation[Any, Any, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return what the document says of one operation; ``fields``: schemas of its parameters, by name."""
    in_body = [each for each in operation.fields if each.place is In.BODY]
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "x-role": operation.role.value,
        "x-audited": operation.audit is not None,
        "parameters": [_parameter(each, fields) for each in operation.fields if each.place is not In.BODY],
        "responses": {
            "200": _answer("The result.", "application/json", operation.result),
            "default": _answer("A problem.", "application/problem+json", Problem),
        },
    }
    if in_body:
        schema = {
            "type": "object",
            "properties": {each.key: fields[_field_name(each)] for each in in_body},
            "required": [each.key for each in in_body if each.is_required],
        }
        required = any(each.is_required for each in in_body)
        entry["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return entry


def _parameter(parameter: Parameter, fields: dict[str, Any]) -> dict[str, Any]:
    schema = {name: value for name, value in fields[_field_name(parameter)].items() if name != "description"}
    return {
        "name": parameter.key,
        "in": parameter.place.value,
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": schema,
    }


def _field_name(parameter: Parameter) -> str:
    """Return the name of a parameter in its Struct's schema: a header's there is that of the attribute."""
    return parameter.name if parameter.place is In.HEADER else parameter.key


def _answer(about: str, media_type: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "description": about,
        "content": {media_type: {"schema": {"$ref": _REF.format(name=kind.__name__)}}},
    }
