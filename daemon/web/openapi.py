"""`/openapi.json`: OpenAPI 3.1, generated from the routes and what their handlers say of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel

from daemon.model.job import JobState
from daemon.web.envelope import Operation, endpoint

_REFERENCES = "#/components/schemas/{model}"
_PLACE = re.compile(r"\{([A-Za-z_]\w*)(?::[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")

_ERRORS = {
    "400": "What was sent cannot be read; `message` says where.",
    "401": "No token, or one that is not live.",
    "403": "The token's scope does not allow it.",
    "404": "There is no such thing.",
    "409": "It conflicts with what there is.",
    "413": "Too large.",
    "415": "A content type that is not accepted.",
    "422": "A definition or configuration that is refused; `errors` lists what and where.",
    "429": "The backlog is at its bound; `Retry-After` says how long to wait.",
    "503": "It cannot be stored now; `Retry-After` says how long to wait.",
}

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["status", "message", "request_id"],
    "properties": {
        "status": {"type": "integer"},
        "message": {"type": "string"},
        "request_id": {"type": "string"},
        "data": {},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"loc": {"type": "array"}, "msg": {"type": "string"}}},
        },
    },
}


def routes() -> list[web.RouteDef]:
    """Gives the route of the document."""
    return [web.get("/openapi.json", openapi)]


@endpoint(None, tag="daemon")
async def openapi(request: web.Request) -> object:
    """Describes this API as OpenAPI 3.1."""
    return web.json_response(document(request.app))


def document(app: web.Application) -> dict[str, Any]:
    """Makes the document of an application; every route's handler must carry an `Operation`."""
    schemas: dict[str, Any] = {"Error": _ERROR_SCHEMA}
    paths: dict[str, dict[str, Any]] = {}
    for route in app.router.routes():
        operation: Operation | None = getattr(route.handler, "operation", None)
        if operation is None:
            raise TypeError(f"{route.method} {route.resource} has no description: use endpoint or describe")
        if route.method in (hdrs.METH_HEAD, hdrs.METH_OPTIONS) or route.resource is None:
            continue
        pattern = route.resource.canonical
        path = _PLACE.sub(r"{\1}", pattern)
        paths.setdefault(path, {})[route.method.lower()] = _operation(operation, route.method, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cohortd", "version": version("cohortd"), "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}, {"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "The bare token."},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


#: Query parameters that are more than text, wherever they occur.
_TEXT = {"type": "string"}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "state": {"type": "string", "enum": [each.value for each in JobState]},
}


def _operation(operation: Operation, method: str, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", path).strip("_")
    made: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [
            {"name": place, "in": "path", "required": True, "schema": {"type": "string"}}
            for place in _PLACE.findall(path)
        ]
        + [
            {"name": parameter, "in": "query", "description": text, "schema": _PARAMETERS.get(parameter, _TEXT)}
            for parameter, text in operation.query.items()
        ],
        "responses": {"200": _success(operation, schemas)},
    }
    if operation.description:
        made["description"] = operation.description
    if operation.scope is None:
        made["security"] = []
    else:
        made["x-scope"] = operation.scope
    for status, text in _ERRORS.items():
        made["responses"][status] = {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    if operation.body:
        content = {kind: {"schema": _schema(model, schemas)} for kind, model in operation.body.items()}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _success(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if operation.reply is None and not operation.enveloped:
        return {"description": "Done."}
    data = _schema(operation.reply, schemas) if operation.reply is not None else {}
    envelope = {
        "type": "object",
        "required": ["status", "message", "request_id"],
        "properties": {
            "status": {"type": "integer"},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "data": data,
            "total": {"type": "integer", "description": "Lists: how many there are in all."},
            "_next": {"type": "string", "description": "Lists: `start` of the next page."},
        },
    }
    return {"description": "Done.", "content": {"application/json": {"schema": envelope}}}


def _schema(model: object, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        schema = model.model_json_schema(ref_template=_REFERENCES, mode="serialization")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
        return {"$ref": _REFERENCES.format(model=model.__name__)}
    if isinstance(model, Mapping):
        return dict(model)
    raise TypeError(f"{model!r} is neither a model nor a JSON Schema")
