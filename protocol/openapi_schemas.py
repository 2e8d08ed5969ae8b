"""The OpenAPI schemas of the contract's messages, with the comments of classifier.proto."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.rpc import status_pb2

from convoy.v1 import classifier_pb2 as pb
from server.core.validation import MAX_REQUEST_ID_LENGTH

Json = dict[str, Any]

FOLDER = Path(__file__).parent
PACKAGES = Path(status_pb2.__file__).parents[2]  # where google/rpc/status.proto is
REQUESTS = (pb.ClassifyRequest, pb.BatchClassifyRequest)
ANSWERS = (pb.ClassifyResponse, pb.BatchClassifyResponse, pb.ListModelsResponse, pb.Model)

OVERRIDDEN = {
    "convoy.v1.ClassifyRequest.model": "Optional, since the path names the model; must be the same "
    "name if present."
}

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
# protobuf's JSON also reads an option from a string, and null as absent.
ALSO_READ = ["string", "null"]
BATCH_ITEM = "BatchItem"
# The ranges that `check_options` enforces.
LIMITS: dict[str, Json] = {
    "convoy.v1.ClassifyRequest.top_k": {"minimum": 1},
    "convoy.v1.ClassifyRequest.min_score": {"minimum": 0, "maximum": 1},
    "convoy.v1.ClassifyRequest.request_id": {"maxLength": MAX_REQUEST_ID_LENGTH},
}


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def descriptor(message: type[Message]) -> Descriptor:
    # The type stubs distinguish protobuf's two implementations; what is used here is the same.
    return cast(Descriptor, message.DESCRIPTOR)


@cache
def schemas() -> Json:
    requests, answers = reachable(REQUESTS), reachable(ANSWERS)
    fields = [field for message in answers for field in message.fields]
    enums = dict.fromkeys(field.enum_type for field in fields if field.enum_type)
    return {
        **{message.name: request_schema(message) for message in requests},
        # A missing or invalid field fails one request of a batch, not the batch.
        BATCH_ITEM: request_schema(descriptor(pb.ClassifyRequest), is_strict=False),
        **{message.name: answer_schema(message) for message in answers},
        **{enum.name: enum_schema(enum) for enum in enums},
    }


def reachable(roots: Iterable[type[Message]]) -> list[Descriptor]:
    """The roots and the messages that they contain, but for Any and the entries of maps."""
    messages: list[Descriptor] = []

    def visit(message: Descriptor) -> None:
        if message in messages or message.GetOptions().map_entry:
            return
        messages.append(message)
        for field in message.fields:
            if field.message_type and field.message_type.full_name != "google.protobuf.Any":
                visit(field.message_type)

    for root in roots:
        visit(descriptor(root))
    return messages


def request_schema(message: Descriptor, *, is_strict: bool = True) -> Json:
    """`is_strict`: with required fields and the ranges of values."""
    schema = {**object_schema(message), "additionalProperties": False}
    for field in message.fields:
        inner = schema["properties"][field.name]
        if is_choice(field):
            inner.update({**choices(field), "type": ["array", "null"]})
        elif is_option(field):
            inner["type"] = list(dict.fromkeys([inner["type"], *ALSO_READ]))
            inner.update(LIMITS.get(field.full_name, {}) if is_strict else {})
    required = [field.name for field in message.fields if is_required(field)]
    return {**schema, "required": required} if is_strict and required else schema


def is_option(field: FieldDescriptor) -> bool:
    return not (field.message_type or field.type == field.TYPE_BYTES)


def is_choice(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated and field.enum_type)


def choices(field: FieldDescriptor) -> Json:
    """What a request may choose of an enum: several names, but not the one for no value."""
    names = [value.name for value in field.enum_type.values if value.number]
    return {"type": "array", "items": {"type": "string", "enum": names}}


def is_required(field: FieldDescriptor) -> bool:
    comment = comments().get(field.full_name, "")
    return comment.endswith("Required.") and field.full_name not in OVERRIDDEN


def answer_schema(message: Descriptor) -> Json:
    """Fields without presence are written even if they are empty or 0."""
    required = [field.name for field in message.fields if not field.has_presence]
    return {**object_schema(message), **({"required": required} if required else {})}


def object_schema(message: Descriptor) -> Json:
    return {
        "type": "object",
        **described(message.full_name),
        "properties": {field.name: field_schema(field) for field in message.fields},
    }


def field_schema(field: FieldDescriptor) -> Json:
    description = described(field.full_name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        values = one_schema(field.message_type.fields_by_name["value"])
        return {"type": "object", "additionalProperties": values, **description}
    if field.is_repeated:
        return {"type": "array", "items": one_schema(field), **description}
    return {**one_schema(field), **description}


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


# ---------------------------------------------------------------- comments


def contract() -> FileDescriptorProto:
    """classifier.proto with its comments, as protoc reads it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "contract.binpb")
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(FOLDER)]
        command += ["-I", str(PACKAGES), "--include_source_info"]
        command += [f"--descriptor_set_out={output}", "convoy/v1/classifier.proto"]
        subprocess.run(command, check=True)
        (file,) = FileDescriptorSet.FromString(output.read_bytes()).file
    return file


@cache
def comments() -> Mapping[str, str]:
    """The contract's comments, by the full name of the element that they precede."""
    file = contract()
    return {
        full_name(file, location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments and is_named(location.path)
    }


def is_named(path: Sequence[int]) -> bool:
    """Paths made of pairs, a field's number and an index, lead to named elements."""
    return len(path) > 1 and len(path) % 2 == 0


def full_name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    names, node = [file.package], file
    for number, index in pairs(path):
        node = getattr(node, node.DESCRIPTOR.fields_by_number[number].name)[index]
        names.append(node.name)
    return ".".join(names)


def pairs(path: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(path[::2], path[1::2], strict=True)
