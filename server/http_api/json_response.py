"""How answers become JSON. For a classification Starlette's own way takes 32 µs, and orjson 2.

A number of 32 bits is given as np.float32, so that it is written in as few digits as it needs.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
