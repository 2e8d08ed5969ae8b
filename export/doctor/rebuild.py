"""Which command builds a version again. Its manifest is data: anybody may have written it."""

from __future__ import annotations

import re
import shlex

from export.catalog import CATALOG

BUILD = "python export/build.py"
# The options that name no file and no server, and the values that they may have.
VALUES = {
    "--format": r"onnx|plan",
    "--weights": r"imagenet(1k_v\d+)?|digits|random",
    "--seed": r"\d+",
    "--max-batch": r"\d+",
    "--opt-batch": r"\d+",
    "--optimization-level": r"\d",
}


def rebuild_command(model: str, recorded: str) -> str:
    """Returns the recorded command if it is one of ours, and complete without a user's files.

    Otherwise nothing of it may reach a shell, and the empty text is returned.
    """
    try:
        words = shlex.split(recorded)
    except ValueError:  # a quotation that does not end
        return ""
    if model not in CATALOG or words[:3] != [*BUILD.split(), model]:
        return ""
    options = iter(words[3:])
    for option in options:
        if option != "--fp16" and not re.fullmatch(VALUES.get(option, "(?!)"), next(options, "")):
            return ""
    return shlex.join(words)
