"""The OpenAPI document of the HTTP door, made from what the gateway is made of.

Messages and their comments are those of the contract (`contract.binpb` is the descriptor of
classifier.proto with its comments, written by `make protocol`); reasons, statuses and their meaning
are those of `errors`.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from convoy.v1 import classifier_pb2 as pb
from server import errors
from server.core.classifier import MAX_REQUEST_ID_LENGTH
from server.errors import HTTP_STATUS, ServingError
from server.http_api.requests import BATCH_OPTIONS, OPTIONS

Json = dict[str, Any]

CONTRACT = Path(__file__).parents[1] / "contract.binpb"
SERVICE = "convoy.v1.ImageClassifier"
REQUESTS = (pb.ClassifyRequest, pb.BatchClassifyRequest)
ANSWERS = (pb.ClassifyResponse, pb.BatchClassifyResponse, pb.ListModelsResponse, pb.Model)

DESCRIPTION = """\
Classifies images with the networks that this gateway serves. The same messages travel over gRPC as
`convoy.v1.ImageClassifier`. Each answer, errors included, repeats `X-Request-Id` and has
`Server-Timing`; each error is a problem document (RFC 9457), whose `reason` is for programs."""
OVERRIDDEN = {
    "convoy.v1.ClassifyRequest.model": "May be left out: the path names the model, and another "
    "name than the path's is refused."
}
# Not of the domain: the server says them of HTTP itself.
TRANSPORT = {
    408: "The request came too slowly.",
    431: "The headers are too large.",
}
# Reasons of every call, of one that names a model, of one with a body; the rest: of one image.
CALLING = ["AUTH_REQUIRED", "FORBIDDEN", "RATE_LIMITED", "INTERNAL"]
NAMING = ["MODEL_NOT_FOUND", "VERSION_NOT_FOUND"]
READING = ["MALFORMED_REQUEST", "IMAGE_TOO_LARGE", "OVERLOADED", "DEADLINE_EXCEEDED"]
CLASSIFYING = [reason for reason in HTTP_STATUS if reason not in (*CALLING, *READING)]

SCALARS: dict[int, Json] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BYTES: {
        "type": "string",
        "format": "byte",
        "contentEncoding": "base64",
    },
}
# protobuf's JSON reads an option also from text, and takes null for absent.
ALSO_READ = ["string", "null"]
BATCH_ITEM = "BatchItem"
# What `check_options` in the classifier demands.
LIMITS: dict[str, Json] = {
    "convoy.v1.ClassifyRequest.top_k": {"minimum": 1},
    "convoy.v1.ClassifyRequest.min_score": {"minimum": 0, "maximum": 1},
    "convoy.v1.ClassifyRequest.request_id": {"maxLength": MAX_REQUEST_ID_LENGTH},
}


def document(example: pb.Model | None, *, needs_key: bool) -> Json:
    """For clients of this gateway; `example` is a model that it serves, with its golden images."""
    model = example.name if example else "lenet5"
    bearer: Json = {"bearer": []}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convoy",
            "version": version("convoy-serving"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [bearer] if needs_key else [{}, bearer],
        "paths": paths(),
        "components": {
            "schemas": {**schemas(), "Problem": PROBLEM},
            "parameters": parameters(model),
            "headers": HEADERS,
            "examples": examples(example),
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
                "requestBody": body_of(pb.ClassifyRequest, IMAGE, with_raw_bytes=True),
                "responses": answers(pb.ClassifyResponse, [*READING, *CLASSIFYING]),
            }
        },
        "/v1/models/{model}:batchClassify": {
            "post": {
                **operation("BatchClassify"),
                "parameters": [*calling, *query_parameters(BATCH_OPTIONS)],
                "requestBody": body_of(pb.BatchClassifyRequest, IMAGES, with_raw_bytes=False),
                "responses": answers(pb.BatchClassifyResponse, [*READING, "SHUTTING_DOWN"]),
            }
        },
        "/v1/models": {
            "get": {
                **operation("ListModels"),
                "responses": answers(pb.ListModelsResponse, ["MALFORMED_REQUEST"]),
            }
        },
        "/v1/models/{model}": {
            "get": {
                **operation("GetModel"),
                "parameters": [model, get_version],
                "responses": answers(pb.Model, [*NAMING, "MALFORMED_REQUEST"]),
            }
        },
        "/livez": {"get": probe("live", "Whether the process answers", [200])},
        "/readyz": {"get": probe("ready", "Whether it can serve, and why not", [200, 503])},
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
    told = {200: "It is so.", 503: "It is not, and why."}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["Probes"],
        "security": [],
        "responses": {str(status): response(told[status], text) for status in statuses},
    }


def parameters(model: str) -> Json:
    return {
        "model": {
            "name": "model",
            "in": "path",
            "required": True,
            "description": "Name of the model.",
            "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
            "example": model,
        },
        "timeout": {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": "Milliseconds, from the arrival of the request's headers, after which "
            "the client waits no longer.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
            "example": 30_000,
        },
        "request_id": {
            "name": "X-Request-Id",
            "in": "header",
            "description": "Repeated in the answer and in the log. The gateway makes one if there "
            "is none, or none of 1 to 128 visible ASCII characters.",
            "schema": {"type": "string"},
            "example": "mine-1",
        },
    }


def query_parameters(names: Iterable[str]) -> list[Json]:
    return [query_parameter(pb.ClassifyRequest, name) for name in names]


def query_parameter(message: type[Message], name: str) -> Json:
    field = descriptor_of(message).fields_by_name[name]
    schema = {**one_schema(field), **LIMITS.get(field.full_name, {})}
    return {"name": name, "in": "query", **described(field.full_name), "schema": schema}


IMAGE = {"type": "string", "format": "binary"}
IMAGES = {"type": "array", "items": IMAGE, "minItems": 1}


def body_of(message: type[Message], image: Json, *, with_raw_bytes: bool) -> Json:
    name = descriptor_of(message).name
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
        "detail": {"type": "string", "description": "For people: what happened, and the remedy."},
        "code": {"type": "string", "description": "Name of the gRPC status."},
        "reason": {
            "type": "string",
            "description": "For programs. Empty where HTTP itself says it all.",
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
        "description": "As in the request; else made by the gateway.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds of each stage (decode, preprocess, queue, compute, infer) and "
        "total.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer"},
    },
}


def answers(message: type[Message], reasons: Iterable[str]) -> Json:
    schema = ref("schemas", descriptor_of(message).name)
    success = response("The answer.", {"application/json": {"schema": schema}})
    return {"200": success, **problems([*reasons, *CALLING])}


def problems(reasons: Iterable[str]) -> Json:
    told: dict[int, list[str]] = defaultdict(list)
    for reason in dict.fromkeys(reasons):
        told[int(HTTP_STATUS[reason])].append(f"`{reason}`: {meanings()[reason]}")
    for status, meaning in TRANSPORT.items():
        told[status].append(meaning)
    content = {"application/problem+json": {"schema": ref("schemas", "Problem")}}
    return {
        str(status): response("\n\n".join(lines), content, may_be_retried=status in RETRIED)
        for status, lines in sorted(told.items())
    }


def response(description: str, content: Json, *, may_be_retried: bool = False) -> Json:
    names = [*ALWAYS, "Retry-After"] if may_be_retried else ALWAYS
    headers = {name: ref("headers", name) for name in names}
    return {"description": description, "headers": headers, "content": content}


@cache
def meanings() -> Mapping[str, str]:
    """What each reason means: the docstring of its class."""
    classes = [found for found in vars(errors).values() if isinstance(found, type)]
    return {
        found.reason: " ".join((found.__doc__ or "").split())
        for found in classes
        if issubclass(found, ServingError) and found is not ServingError
    }


# ---------------------------------------------------------------- schemas


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def descriptor_of(message: type[Message]) -> Descriptor:
    # The type stubs tell protobuf's two implementations apart; what is used here is the same.
    return cast(Descriptor, message.DESCRIPTOR)


@cache
def schemas() -> Json:
    requests, answers = reachable(REQUESTS), reachable(ANSWERS)
    enums = {field.enum_type for message in answers for field in message.fields if field.enum_type}
    return {
        **{message.name: request_schema(message) for message in requests},
        # What is missing or out of its range fails one request of a batch, and not the batch.
        BATCH_ITEM: request_schema(descriptor_of(pb.ClassifyRequest), is_strict=False),
        **{message.name: answer_schema(message) for message in answers},
        **{enum.name: enum_schema(enum) for enum in enums},
    }


def reachable(roots: Iterable[type[Message]]) -> list[Descriptor]:
    """They and the messages that they hold; Any is told apart by its type, and maps are none."""
    found: list[Descriptor] = []

    def visit(message: Descriptor) -> None:
        if message in found or message.GetOptions().map_entry:
            return
        found.append(message)
        for field in message.fields:
            if field.message_type and field.message_type.full_name != "google.protobuf.Any":
                visit(field.message_type)

    for root in roots:
        visit(descriptor_of(root))
    return found


def request_schema(message: Descriptor, *, is_strict: bool = True) -> Json:
    """`is_strict`: with what must be there, and with the range of what is."""
    schema = {**object_schema(message), "additionalProperties": False}
    for field in message.fields:
        if is_option(field):
            inner = schema["properties"][field.name]
            inner["type"] = list(dict.fromkeys([inner["type"], *ALSO_READ]))
            inner.update(LIMITS.get(field.full_name, {}) if is_strict else {})
    required = [field.name for field in message.fields if is_required(field)]
    return {**schema, "required": required} if is_strict and required else schema


def is_option(field: FieldDescriptor) -> bool:
    return not (field.message_type or field.type == field.TYPE_BYTES)


def is_required(field: FieldDescriptor) -> bool:
    comment = comments().get(field.full_name, "")
    return comment.endswith("Required.") and field.full_name not in OVERRIDDEN


def answer_schema(message: Descriptor) -> Json:
    """What has no presence is written even if it is empty or 0."""
    required = [field.name for field in message.fields if not field.has_presence]
    return {**object_schema(message), **({"required": required} if required else {})}


def object_schema(message: Descriptor) -> Json:
    return {
        "type": "object",
        **described(message.full_name),
        "properties": {field.name: field_schema(field) for field in message.fields},
    }


def field_schema(field: FieldDescriptor) -> Json:
    described_so = described(field.full_name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        values = one_schema(field.message_type.fields_by_name["value"])
        return {"type": "object", "additionalProperties": values, **described_so}
    if field.is_repeated:
        return {"type": "array", "items": one_schema(field), **described_so}
    return {**one_schema(field), **described_so}


def one_schema(field: FieldDescriptor) -> Json:
    if field.message_type and field.message_type.full_name == "google.protobuf.Any":
        return {
            "type": "object",
            "description": "A message of google.rpc, such as ErrorInfo with the reason.",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
        }
    if field.full_name == "convoy.v1.BatchClassifyRequest.requests":
        return ref("schemas", BATCH_ITEM)
    if kind := field.message_type or field.enum_type:
        return ref("schemas", kind.name)
    return dict(SCALARS[field.type])


def enum_schema(enum: EnumDescriptor) -> Json:
    lines = (f"`{v.name}`: {comments().get(f'{enum.full_name}.{v.name}', '')}" for v in enum.values)
    names = [value.name for value in enum.values]
    return {"type": "string", "enum": names, "description": "\n\n".join(lines)}


def described(full_name: str) -> Json:
    text = OVERRIDDEN.get(full_name) or comments().get(full_name)
    return {"description": text} if text else {}


# ---------------------------------------------------------------- comments and examples


@cache
def comments() -> Mapping[str, str]:
    """The contract's comments, by the full name of what they stand above."""
    (file,) = FileDescriptorSet.FromString(CONTRACT.read_bytes()).file
    return {
        full_name(file, location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments and is_named(location.path)
    }


def is_named(path: Sequence[int]) -> bool:
    """Pairs of a field's number and an index lead to what has a name; the rest is syntax."""
    return len(path) > 1 and len(path) % 2 == 0


def full_name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    names, node = [file.package], file
    for number, index in pairs(path):
        node = getattr(node, node.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(node.name)
    return ".".join(names)


def pairs(path: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(path[::2], path[1::2], strict=True)


def examples(model: pb.Model | None) -> Json:
    """A picture that the model has proven itself with, so that the example can be sent as it is."""
    golden = model.golden_images[0].content if model and model.golden_images else b""
    image = {"content": base64.b64encode(golden).decode()}
    return {
        "ClassifyRequest": {"value": {"image": image, "top_k": 3}},
        "BatchClassifyRequest": {"value": {"requests": [{"image": image}, {"image": image}]}},
    }
