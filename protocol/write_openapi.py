"""Write server/http_api/openapi.json, the OpenAPI document of the HTTP API.

python protocol/write_openapi.py           writes the document
python protocol/write_openapi.py --print   prints what it would write; a test compares the two

Messages and their comments come from classifier.proto, reasons, statuses and their meaning from
`server.errors`. What depends on the gateway is filled in when it serves the document.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from google.protobuf.message import Message
from openapi_schemas import (
    LIMITS,
    Json,
    choices,
    comments,
    described,
    descriptor,
    is_choice,
    one_schema,
    ref,
    schemas,
)
from openapi_status import GATEWAY_STATUS

from convoy.v1 import classifier_pb2 as pb
from server import errors
from server.errors import HTTP_STATUS, ServingError
from server.http_api.requests import BATCH_OPTIONS, OPTIONS

DOCUMENT = Path(__file__).parents[1] / "server" / "http_api" / "openapi.json"
SERVICE = "convoy.v1.ImageClassifier"

DESCRIPTION = """\
Classify images with the networks that this gateway serves. The gRPC service
`convoy.v1.ImageClassifier` uses the same messages. Every answer, errors included, repeats
`X-Request-Id` and has `Server-Timing`; every error is a problem document (RFC 9457), whose `reason`
is for programs."""
# Statuses of HTTP itself, without a reason.
TRANSPORT = {
    408: "The request arrived too slowly.",
    431: "The headers are too large.",
}
# Reasons of every call, of calls that name a model, of calls with a body; the rest: of one image.
CALLING = ["AUTH_REQUIRED", "FORBIDDEN", "RATE_LIMITED", "INTERNAL"]
NAMING = ["MODEL_NOT_FOUND", "VERSION_NOT_FOUND"]
READING = ["MALFORMED_REQUEST", "IMAGE_TOO_LARGE", "OVERLOADED", "DEADLINE_EXCEEDED"]
CLASSIFYING = [reason for reason in HTTP_STATUS if reason not in (*CALLING, *READING)]


def document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convoy",
            "version": "v1",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "paths": paths(),
        "components": {
            "schemas": {**schemas(), "Problem": PROBLEM, "GatewayStatus": GATEWAY_STATUS},
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "examples": {},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


# ---------------------------------------------------------------- paths


def paths() -> Json:
    model, get_version = ref("parameters", "model"), query_parameter(pb.GetModelRequest, "version")
    timeout, request_id = ref("parameters", "timeout"), ref("parameters", "request_id")
    calling = [model, timeout, request_id]
    return {
        "/v1/models/{model}:classify": {
            "post": {
                **operation("Classify"),
                "parameters": [*calling, *query_parameters(OPTIONS)],
                "requestBody": request_body(pb.ClassifyRequest, IMAGE, with_raw_bytes=True),
                "responses": responses(pb.ClassifyResponse, [*READING, *CLASSIFYING]),
            }
        },
        "/v1/models/{model}:batchClassify": {
            "post": {
                **operation("BatchClassify"),
                "parameters": [*calling, *query_parameters(BATCH_OPTIONS)],
                "requestBody": request_body(pb.BatchClassifyRequest, IMAGES, with_raw_bytes=False),
                "responses": responses(pb.BatchClassifyResponse, [*READING, "SHUTTING_DOWN"]),
            }
        },
        "/v1/models": {
            "get": {
                **operation("ListModels"),
                "responses": responses(pb.ListModelsResponse, ["MALFORMED_REQUEST"]),
            }
        },
        "/v1/models/{model}": {
            "get": {
                **operation("GetModel"),
                "parameters": [model, get_version],
                "responses": responses(pb.Model, [*NAMING, "MALFORMED_REQUEST"]),
            }
        },
        "/v1/status": {
            "get": {
                "operationId": "getStatus",
                "summary": "Status of the gateway: versions, readiness, traffic, latency by stage",
                "tags": ["Status"],
                "responses": answers("GatewayStatus", ["MALFORMED_REQUEST"]),
            }
        },
        "/livez": {"get": probe("live", "Whether the process responds", [200])},
        "/readyz": {
            "get": probe("ready", "Whether the gateway can serve, and if not, why", [200, 503])
        },
    }


def operation(method: str) -> Json:
    comment = comments()[f"{SERVICE}.{method}"]
    text = re.sub(r"\s*HTTP: \S+ \S+$", "", comment)
    return {
        "operationId": method[0].lower() + method[1:],
        "summary": re.split(r"\.(?:\s|$)", text, maxsplit=1)[0],
        "description": text,
        "tags": ["ImageClassifier"],
    }


def probe(operation_id: str, summary: str, statuses: Iterable[int]) -> Json:
    meaning = {200: "Yes.", 503: "No, and why not."}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["Probes"],
        "security": [],
        "responses": {str(status): response(meaning[status], text) for status in statuses},
    }


PARAMETERS: Json = {
    "model": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "Name of the model.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "example": "lenet5",
    },
    "timeout": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "How long the client waits, in milliseconds from the arrival of the "
        "request's headers.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "example": 30_000,
    },
    "request_id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Repeated in the answer and in the log. The gateway generates one if it "
        "is missing or is not 1 to 128 visible ASCII characters.",
        "schema": {"type": "string"},
        "example": "mine-1",
    },
}


def query_parameters(names: Iterable[str]) -> list[Json]:
    return [query_parameter(pb.ClassifyRequest, name) for name in names]


def query_parameter(message: type[Message], name: str) -> Json:
    field = descriptor(message).fields_by_name[name]
    parameter = {"name": name, "in": "query", **described(field.full_name)}
    if is_choice(field):  # joined by commas
        return {**parameter, "style": "form", "explode": False, "schema": choices(field)}
    return {**parameter, "schema": {**one_schema(field), **LIMITS.get(field.full_name, {})}}


IMAGE = {"type": "string", "format": "binary"}
IMAGES = {"type": "array", "items": IMAGE, "minItems": 1}


def request_body(message: type[Message], image: Json, *, with_raw_bytes: bool) -> Json:
    name = descriptor(message).name
    example = {"real": ref("examples", name)}
    form = {"type": "object", "properties": {"image": image}, "required": ["image"]}
    raw = {"application/octet-stream": {"schema": image}} if with_raw_bytes else {}
    return {
        "required": True,
        "content": {
            **raw,
            "multipart/form-data": {"schema": {**form, "additionalProperties": False}},
            "application/json": {"schema": ref("schemas", name), "examples": example},
        },
    }


# ---------------------------------------------------------------- answers and errors


PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people: what happened, and what helps."},
        "code": {"type": "string", "description": "Name of the gRPC status."},
        "reason": {
            "type": "string",
            "description": "For programs. Empty for statuses of HTTP itself.",
            "enum": [*HTTP_STATUS, ""],
        },
        "request_id": {"type": "string"},
        "error": {"type": "string", "description": "The detail again."},
    },
    "required": ["title", "status", "detail", "code", "reason", "request_id", "error"],
}
ALWAYS = ["X-Request-Id", "Server-Timing"]
RETRIED = (429, 503)
HEADERS: Json = {
    "X-Request-Id": {
        "description": "That of the request, or one that the gateway generated.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds per stage (decode, preprocess, queue, compute, infer), and "
        "in total.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer"},
    },
}


def responses(message: type[Message], reasons: Iterable[str]) -> Json:
    return answers(descriptor(message).name, reasons)


def answers(schema: str, reasons: Iterable[str]) -> Json:
    content = {"application/json": {"schema": ref("schemas", schema)}}
    success = response("Success.", content)
    return {"200": success, **problems([*reasons, *CALLING])}


def problems(reasons: Iterable[str]) -> Json:
    lines: dict[int, list[str]] = defaultdict(list)
    for reason in dict.fromkeys(reasons):
        lines[int(HTTP_STATUS[reason])].append(f"`{reason}`: {meanings()[reason]}")
    for status, meaning in TRANSPORT.items():
        lines[status].append(meaning)
    content = {"application/problem+json": {"schema": ref("schemas", "Problem")}}
    return {
        str(status): response("\n\n".join(texts), content, may_be_retried=status in RETRIED)
        for status, texts in sorted(lines.items())
    }


def response(description: str, content: Json, *, may_be_retried: bool = False) -> Json:
    names = [*ALWAYS, "Retry-After"] if may_be_retried else ALWAYS
    headers = {name: ref("headers", name) for name in names}
    return {"description": description, "headers": headers, "content": content}


@cache
def meanings() -> Mapping[str, str]:
    """The meaning of each reason: the docstring of its class."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    return {
        error.reason: " ".join((error.__doc__ or "").split())
        for error in classes
        if issubclass(error, ServingError) and error is not ServingError
    }


if __name__ == "__main__":
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--print"]:
        print(text, end="")
    else:
        DOCUMENT.write_text(text, encoding="utf-8")
