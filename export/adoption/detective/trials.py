"""What a file answers to a reference's pictures under one setting after the other."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import onnxruntime

from export.adoption.decisions import network_of
from export.adoption.detective.reference import Reference
from export.adoption.given import feed, to_probabilities
from export.adoption.options import AdoptOptions
from export.adoption.sessions import open_session, run_in_batches
from export.preparation.given import Given
from export.preparation.options import AS_PUBLISHED
from export.preparation.reference import prepare
from export.progress import Reporter
from export.samples.images import Pixels, Probabilities

MAX_PREPARED_BYTES = 256_000_000  # of pixels that are kept for the next settings


class OutOfTime(Exception):
    """The search is to end with what it has found."""


class Trials:
    """Of some pictures. Each setting is tried once."""

    def __init__(
        self,
        subject: Subject,
        reference: Reference,
        reporter: Reporter,
        deadline_s: float = math.inf,  # on the monotonic clock
    ) -> None:
        self.reference = reference
        self.tried: dict[Given, Probabilities] = {}  # N: Reference.differences
        self.deadline_s = deadline_s
        self._subject, self._reporter = subject, reporter
        self._prepared: OrderedDict[Given, Pixels] = OrderedDict()

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
            if self.tried and time.monotonic() > self.deadline_s:
                raise OutOfTime
            self.tried[setting] = self.reference.differences(self.answers(setting))
            self._reporter.progress(
                f"settings, on {len(self.reference)} pictures", len(self.tried), None
            )
        return self.tried[setting]

    def answers(self, setting: Given) -> Probabilities:
        geometry = replace(setting, channels=None, mean=None, std=None)
        return self._subject.answer(self._pixels(geometry), setting)

    def _pixels(self, geometry: Given) -> Pixels:
        """The last ones are kept: a search changes one aspect after the other."""
        if geometry not in self._prepared:
            photo = geometry.to_photo(self._subject.base.preprocessing.photo)
            self._prepared[geometry] = np.stack(
                [prepare(picture, photo) for picture in self.reference.pictures]
            )
        self._prepared.move_to_end(geometry)
        pixels = self._prepared[geometry]
        while len(self._prepared) * pixels.nbytes > max(MAX_PREPARED_BYTES, pixels.nbytes):
            self._prepared.popitem(last=False)
        return pixels


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
