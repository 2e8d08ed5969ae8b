"""A single version before it is published, for a build that asks a private gateway first.

`NAME.vN.staging`, which nothing else serves, is `NAME.vN` here, and the only version. It is
unloaded at the end: a Triton that others use too is left as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from server.errors import RunnerUnavailable
from server.folder_names import STAGING_SUFFIX
from server.runners.base import Fingerprint, Inference, LoadedModel, Runner


class StagedRunner:
    """A `Runner` of one staging folder."""

    def __init__(self, runner: Runner, folder: str) -> None:
        self._runner = runner
        self._folder = folder
        self._name = folder.removesuffix(STAGING_SUFFIX)
        self._is_loaded = False

    async def index(self) -> dict[str, bool]:
        return {self._name: self._is_loaded}

    async def fingerprint(self, name: str) -> Fingerprint:
        return await self._runner.fingerprint(self._folder)

    async def load(self, name: str) -> LoadedModel:
        loaded = await self._runner.load(self._folder)
        self._is_loaded = True
        return loaded

    async def unload(self, name: str) -> None:
        self._is_loaded = False
        await self._runner.unload(self._folder)

    async def infer(
        self,
        name: str,
        images: npt.NDArray[np.uint8],
        timeout_s: float | None = None,
        outputs: Sequence[str] = (),
    ) -> Inference:
        return await self._runner.infer(self._folder, images, timeout_s, outputs)

    async def close(self) -> None:
        with contextlib.suppress(RunnerUnavailable):
            await self._runner.unload(self._folder)
        await self._runner.close()
