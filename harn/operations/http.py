"""
Operations over HTTP: their requests, and the admin API as an OpenAPI 3.1 document, made from their declarations.

Requests are read by the server, with every wrong or unknown argument refused, and written by clients.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta, Struct, field

import harn
from harn.errors import NotPermitted, OriginRefused, PayloadInvalid
from harn.operations.model import Caller, Get, Operation, Result, Role, operation
from harn.operations.parameters import In, Parameter, Parameters, given, schema_of_written
from harn.operations.statuses import first_of, status_of

_AS_TEXT = frozenset((In.PATH, In.QUERY, In.HEADER))
"""Places of a request whose values are texts; a body has JSON."""
REQUEST_ID = "request_id"
"""A member of every body that makes a signed one unique, and is not looked at."""

P = TypeVar("P", bound=Parameters)


class Arguments(Struct, frozen=True, kw_only=True):
    """
    The arguments of a request as they came.

    :ivar headers: names in lower case.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def read_parameters(operation: Operation[Any, P, Any], arguments: Arguments) -> P:
    """
    Read and check the parameters of an operation.

    :raises PayloadInvalid: one is wrong, missing or unknown; says what it must be.
    """
    values = {
        In.PATH: arguments.path,
        In.QUERY: arguments.query,
        In.HEADER: arguments.headers,
        In.BODY: _members(arguments.body),
    }
    known = {place: [each.key for each in operation.fields if each.place is place] for place in In}
    _check_known("option of the query", arguments.query, known[In.QUERY])
    _check_known("member of the body", values[In.BODY], [*known[In.BODY], REQUEST_ID])
    found = {
        each.name: values[each.place].get(each.key.lower() if each.place is In.HEADER else each.key)
        for each in operation.fields
    }
    return parameters_of(operation, found)


def parameters_of(operation: Operation[Any, P, Any], values: Mapping[str, Any], texts: Container[In] = _AS_TEXT) -> P:
    """
    Return the parameters with these values, by attribute, as they came; None counts as left out.

    :param texts: the places whose strings are texts to be read; strings of the others are values as they stand.
    :raises PayloadInvalid: one is wrong or missing; says what it must be.
    """
    read: dict[str, Any] = {}
    for each in operation.fields:
        value = values[each.name]
        try:
            if value is not None:
                is_text = isinstance(value, str) and each.place in texts
                read[each.name] = each.read_text(value) if is_text else each.read(value)
            elif each.is_required:
                raise ValueError(f"must be {each.expected}, got nothing")
        except ValueError as wrong:
            raise PayloadInvalid(f"{each.key}: {wrong}") from None
    try:
        return operation.parameters(**read)
    except ValueError as wrong:
        raise PayloadInvalid(str(wrong)) from None


def read_object(operation: Operation[Any, P, Any], values: Mapping[str, Any]) -> P:
    """
    Read and check the parameters of an operation out of one object, wherever they stand in its request.

    :param values: by `Parameter.member`.
    :raises PayloadInvalid: one is wrong, missing or unknown; says what it must be.
    """
    _check_known("argument", values, [each.member for each in operation.fields])
    return parameters_of(operation, {each.name: values.get(each.member) for each in operation.fields})


def object_schema(operation: Operation[Any, Any, Any]) -> dict[str, Any]:
    """Return the JSON schema of what `read_object` reads."""
    fields, others = _schemas_of(operation, "#/$defs/{name}")
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {each.member: fields[each.member] for each in operation.fields},
        "required": [each.member for each in operation.fields if each.is_required],
        "additionalProperties": False,
    }
    return {**schema, "$defs": others} if others else schema


def _schemas_of(operation: Operation[Any, Any, Any], ref: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of the parameters by `Parameter.member`, and those that they refer to by name."""
    _, schemas = msgspec.json.schema_components([operation.parameters], schema_hook=schema_of_written, ref_template=ref)
    fields: dict[str, Any] = schemas.pop(operation.parameters.__name__)["properties"]
    return fields, schemas


def _members(body: bytes) -> dict[str, Any]:
    """
    Read an optional JSON object.

    :raises PayloadInvalid: it is something else.
    """
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PayloadInvalid("the body: must be a JSON object or empty, got something that is not JSON") from None
    if not isinstance(document, dict):
        raise PayloadInvalid("the body: must be a JSON object or empty, got another JSON value")
    return document


def _check_known(what: str, names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            allowed = ", ".join(each for each in known if each != REQUEST_ID)
            must = f"must be one of {allowed}" if allowed else "must not be given"
            raise PayloadInvalid(f"unknown {what}: {must}, got {name!r}")


class OperationRequest(Struct, frozen=True, kw_only=True):
    """
    A request as a client sends it.

    :ivar target: path and query.
    :ivar body: the members of the JSON object of a POST.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def write_request(operation: Operation[Any, P, Any], wanted: P) -> OperationRequest:
    """Write the request of an operation; what has its default is left out."""
    parts: dict[In, dict[str, Any]] = {place: {} for place in In}
    for each, value in given(operation.fields, wanted):
        parts[each.place][each.key] = value
    path = operation.route.filled({key: quote(str(value), safe="") for key, value in parts[In.PATH].items()})
    query = urlencode({key: "true" if value is True else value for key, value in parts[In.QUERY].items()})
    return OperationRequest(
        method=operation.route.method,
        target=f"/admin{path}" + (f"?{query}" if query else ""),
        headers=parts[In.HEADER],
        body=parts[In.BODY],
    )


ROOT = "/admin"
JSON, PROBLEM = "application/json", "application/problem+json"
EVERYWHERE = {
    400: "A parameter is wrong, missing or unknown; says what it must be.",
    401: "There are no credentials, or wrong ones.",
    431: "The headers are too large.",
    503: "The server cannot do it now; Retry-After says when to ask again.",
}
"""Problems that every operation may answer with, by status."""
FOREIGN = "A page of another site sent it, or Host is not a name of this server."
OF_BODIES = {408: "The body did not come in time.", 413: "The body is too large."}
"""Problems of a POST."""
ANSWERS = "answers.json"
"""The file of the package with answers of a real server."""
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
    """Return the entry of one operation in the document; ``fields``: schemas of its parameters, by name."""
    in_body = [each for each in operation.fields if each.place is In.BODY]
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "x-role": operation.role.value,
        "x-audited": operation.audit is not None,
        "parameters": [
            _parameter(each, fields, operation.example) for each in operation.fields if each.place is not In.BODY
        ],
        "responses": _responses(operation),
    }
    if in_body:
        schema = {
            "type": "object",
            "properties": {each.key: fields[each.member] for each in in_body},
            "required": [each.key for each in in_body if each.is_required],
        }
        required = any(each.is_required for each in in_body)
        content: dict[str, Any] = {"schema": schema}
        example = {each.key: operation.example[each.member] for each in in_body if each.member in operation.example}
        if example:
            content["example"] = example
        entry["requestBody"] = {"required": required, "content": {"application/json": content}}
    return entry


def problems_of(operation: Operation[Any, Any, Any]) -> dict[int, str]:
    """Return the problems that an operation may answer with, by status, each with its meaning; there are no others."""
    found = dict(EVERYWHERE)
    needed = operation.role
    found[403] = (
        FOREIGN if needed is Role.READ else f"The role of the credentials is not {_covering(needed)}. {FOREIGN}"
    )
    if operation.route.method == "POST":
        found |= OF_BODIES
    if any(each.place in (In.PATH, In.QUERY) for each in operation.fields):
        found[414] = "The path with its query is too long."
    if any(each.key == "If-Match" for each in operation.fields):
        found[412] = "Another generation is live than If-Match names."
    for status, whys in _raised(operation).items():
        found[status] = " ".join(([found[status]] if status in EVERYWHERE else []) + whys)
    if operation.route.in_path:
        found.setdefault(404, "There is none of that name or number.")
    return dict(sorted(found.items()))


def _covering(needed: Role) -> str:
    return " or ".join(f"`{role.value}`" for role in Role if role.covers(needed))


def _raised(operation: Operation[Any, Any, Any]) -> dict[int, list[str]]:
    """Return when an operation raises which of its own errors, by their statuses."""
    found: dict[int, list[str]] = {}
    for each in operation.raises:
        whys = found.setdefault(status_of(each.kind).code, [])
        if each.why not in whys:
            whys.append(each.why)
    return found


def _responses(operation: Operation[Any, Any, Any]) -> dict[str, Any]:
    """Return all answers by status."""
    kinds = [OriginRefused if operation.role is Role.READ else NotPermitted, *(each.kind for each in operation.raises)]
    raised = {status_of(kind).code: status_of(kind) for kind in kinds}
    found: dict[int, dict[str, Any]] = {}
    for status, about in problems_of(operation).items():
        found[status] = _answer(about, PROBLEM, Problem)
        known = raised.get(status) or first_of(status)
        if known is not None:
            example = Problem(type="about:blank", title=known.title, status=status, detail=about)
            found[status]["content"][PROBLEM]["example"] = msgspec.to_builtins(example)
    for status, about in operation.also.items():
        found[status] = _answer(about, JSON, operation.result)
        found[status]["content"] |= _answer(about, PROBLEM, Problem)["content"]
    found[200] = _answer("The result.", JSON, operation.result)
    if operation.name in recorded_answers():
        found[200]["content"][JSON]["example"] = recorded_answers()[operation.name]
    return {str(status): found[status] for status in sorted(found)}


@cache
def recorded_answers() -> Mapping[str, Any]:
    """Return examples of results by the names of operations: answers of a real server, which a test compares."""
    answers: Mapping[str, Any] = msgspec.json.decode(resources.files(__package__).joinpath(ANSWERS).read_bytes())
    return answers


def _parameter(parameter: Parameter, fields: dict[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    schema = _without_null({name: value for name, value in fields[parameter.member].items() if name != "description"})
    entry = {
        "name": parameter.key,
        "in": parameter.place.value,
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": schema,
    }
    return {**entry, "example": example[parameter.member]} if parameter.member in example else entry


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what stands outside of a body, where null cannot be written: it is left out instead."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **{name: value for name, value in kinds[0].items() if name != "description"}}


def _answer(about: str, media_type: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "description": about,
        "content": {media_type: {"schema": {"$ref": _REF.format(name=kind.__name__)}}},
    }
