"""What a file answers to a reference's pictures under one setting after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.adoption.decisions import network_of
from export.adoption.detective.reference import Reference
from export.adoption.detective.time_limit import TimeLimit
from export.adoption.given import feed, to_probabilities
from export.adoption.options import AdoptOptions
from export.adoption.sessions import open_session, run_in_batches
from export.preparation.given import Given
from export.preparation.options import AS_PUBLISHED
from export.preparation.reference import prepare
from export.progress import Reporter
from export.samples.images import Pixels, Probabilities

MAX_BYTES = 256_000_000  # of pixels that are kept for the next settings; and of answers

Array = TypeVar("Array", bound=npt.NDArray[Any])


class Trials:
    """Of some pictures. Each setting is tried once; one is tried however little time there is."""

    def __init__(
        self, subject: Subject, reference: Reference, reporter: Reporter, limit: TimeLimit
    ) -> None:
        self.reference = reference
        self.tried: dict[Given, Probabilities] = {}  # N: Reference.differences
        self._subject, self._reporter, self._limit = subject, reporter, limit
        self._answers: _Recent[Probabilities] = _Recent()
        self._prepared: _Recent[Pixels] = _Recent()

    def loss(self, setting: Given) -> float:
        """How far its answers are from the reference's, on average.

        Raises:
            OutOfTime: it is not tried any more.
        """
        return float(self.differences(setting).mean())

    def differences(self, setting: Given) -> Probabilities:
        """Per picture.

        Raises:
            OutOfTime: it is not tried any more.
        """
        if setting not in self.tried:
            if self.tried:
                self._limit.check()
            self.tried[setting] = self.reference.differences(self.answers(setting))
            self._reporter.progress(
                f"settings, on {len(self.reference)} pictures", len(self.tried), None
            )
        return self.tried[setting]

    def answers(self, setting: Given) -> Probabilities:
        """N×K."""
        return self._answers.get(setting, self._answer)

    def _answer(self, setting: Given) -> Probabilities:
        geometry = replace(setting, channels=None, mean=None, std=None)
        return self._subject.answer(self._prepared.get(geometry, self._prepare), setting)

    def _prepare(self, geometry: Given) -> Pixels:
        photo = geometry.to_photo(self._subject.base.preprocessing.photo)
        return np.stack([prepare(picture, photo) for picture in self.reference.pictures])


class _Recent(Generic[Array]):
    """The last arrays are kept: a search changes one aspect after the other. All are of a size."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[Given, Array] = OrderedDict()

    def get(self, setting: Given, compute: Callable[[Given], Array]) -> Array:
        if setting not in self._arrays:
            self._arrays[setting] = compute(setting)
        self._arrays.move_to_end(setting)
        array = self._arrays[setting]
        while len(self._arrays) * array.nbytes > max(MAX_BYTES, array.nbytes):
            self._arrays.popitem(last=False)
        return array


class Subject:
    """The file, which can be fed as any setting says."""

    def __init__(self, options: AdoptOptions) -> None:
        """
        Raises:
            AdoptionError: ONNX Runtime does not open it.
        """
        self._options = options
        self._given = options.given
        self.base = network_of(options.given, AS_PUBLISHED)
        file = options.given.file
        self._session: onnxruntime.InferenceSession = open_session(str(file.path), file.name)

    def answer(self, pixels: Pixels, setting: Given) -> Probabilities:
        given = self._given
        fed = feed(pixels, setting.prepare(self.base), given)
        outputs = run_in_batches(self._session, fed, given.batch or 1, given.file.name)
        return to_probabilities(
            outputs[given.output], given, self._options.scores, self._options.activation
        )
