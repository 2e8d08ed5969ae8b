"""GET /v1/status in the OpenAPI document: its answer is no message of the contract."""

from __future__ import annotations

from openapi_schemas import Json


def text(description: str = "") -> Json:
    return described({"type": "string"}, description)


def number(description: str = "", *, may_be_null: bool = False) -> Json:
    return described({"type": ["number", "null"] if may_be_null else "number"}, description)


def integer(description: str = "") -> Json:
    return described({"type": "integer"}, description)


def truth(description: str = "") -> Json:
    return described({"type": "boolean"}, description)


def counts(description: str) -> Json:
    return described({"type": "object", "additionalProperties": integer()}, description)


def described(schema: Json, description: str) -> Json:
    return {**schema, "description": description} if description else schema


def record(fields: Json, *, optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required}


def listed(schema: Json, description: str) -> Json:
    return {"type": "array", "items": schema, "description": description}


GATEWAY = record(
    {
        "version": text(),
        "uptime_s": number(),
        "is_ready": truth(),
        "why_not_ready": text(),
        "in_flight": integer("Images."),
        "in_flight_bytes": integer(),
        "log_lines_lost": integer(),
    }
)
RUNNER = record(
    {
        "name": text(),
        "is_reachable": truth(),
        "fault": text(),
        "has_repository": truth("False while the runner's repository is missing or unreadable."),
        "in_flight": integer(),
        "images": counts("Images by outcome."),
    }
)
RUNG = record(
    {
        "name": text(),
        "images": integer(),
        "largest_difference": number("Of a probability."),
        "tolerance": number(),
        "reported_only": truth("True if the difference was reported but not judged."),
    }
)
OF_READY_VERSIONS = ("runtime", "device", "precision", "weights", "manifest_digest", "parity")
VERSION = record(
    {
        "model": text(),
        "version": text(),
        "state": text("AVAILABLE, LOADING, READY or FAILED."),
        "why_not_ready": text(),
        "is_default": truth(),
        "runtime": text(),
        "device": text(),
        "precision": text(),
        "weights": text(),
        "manifest_digest": text(),
        "parity": listed(RUNG, "Of versions that are ready."),
    },
    optional=OF_READY_VERSIONS,
)
STAGE = record({"count": integer(), "p50_ms": number(), "p99_ms": number()})
TRAFFIC = record(
    {
        "model": text("Empty: requests for models that do not exist."),
        "requests": integer(),
        "errors": counts("Requests by reason."),
        "p50_ms": number(may_be_null=True),
        "p99_ms": number(may_be_null=True),
        "stages": {"type": "object", "additionalProperties": STAGE},
        "batches": listed(
            {"type": "array", "items": number(), "minItems": 2, "maxItems": 2},
            "Pairs: the size of a batch, rounded up to a power of two, and the images in such.",
        ),
    }
)
GATEWAY_STATUS: Json = {
    **record(
        {
            "gateway": GATEWAY,
            "runners": listed(RUNNER, "What runs the models."),
            "models": listed(VERSION, "Every version, by name."),
            "traffic": listed(TRAFFIC, "Since the start, by model."),
        }
    ),
    "description": "What the gateway serves, what it does not and why, and how that performs.",
}
