"""Asks a running gateway for each labelled picture, several at once, and counts the answers.

Every request names the version, so that a newer one, published meanwhile, answers none of them. A
gateway that is overloaded, restarting or out of reach is asked again after a pause. A picture that
it refuses is excluded from the figures, with the reason.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from convoy import (
    BadImage,
    Classification,
    Client,
    ConvoyError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerFault,
    Unavailable,
)
from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluation.results import ResultsFile
from export.evaluation.tally import REFUSED, TOP, UNKNOWN_LABEL, UNREADABLE, Result, Tally
from export.evaluation.truth import Classes, Labelled, Truth, read_picture
from export.progress import SILENT, Reporter

T = TypeVar("T")

WAITING_PER_REQUEST = 2  # pictures that wait or are asked about, for each request at once
PATIENCE_S = 300.0  # how long one picture is asked about
INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.1, 10.0
GRPC_TOO_LARGE = "larger than max"  # gRPC itself refuses it, by the code of an overload
MAX_FAULTS = 3  # of the gateway or the network, with one picture


@dataclass
class Evaluation:
    tally: Tally
    resumed: int = 0  # pictures whose results were there already
    retries: Counter[str] = field(default_factory=Counter)  # by what was wrong
    default_version: str = ""  # at the end


@dataclass(frozen=True)
class Survey:
    """What the pictures are, before any is sent."""

    total: int
    unknown: int  # pictures whose label is not one of the network's
    examples: tuple[str, ...]  # why, for some of them


def survey(truth: Truth, classes: Classes, examples: int = 3) -> Survey:
    """
    Raises:
        EvaluationError: the pictures cannot be listed, or none has a label of the network.
    """
    total = unknown = 0
    reasons: dict[str, None] = {}  # in their order
    for total, item in enumerate(truth, start=1):  # noqa: B007 - the last is their number
        if classes.find(item.label) is None:
            unknown += 1
            if len(reasons) < examples and item.label not in reasons:
                reasons[item.label] = None
    explained = tuple(map(classes.explain, reasons))
    if not total:
        raise EvaluationError(
            f"{truth.source} has no labelled pictures: expected is a folder that has one per "
            "label, or a CSV file with the columns path and label."
        )
    if unknown == total:
        raise EvaluationError(
            f"None of the {total} pictures of {truth.source} has a label of the network: "
            f"{'; '.join(explained)}."
        )
    return Survey(total, unknown, explained)


class Limiter:
    """How many requests are sent at once: half as many after an overload, slowly more again.

    As TCP does it: additive increase, multiplicative decrease (Chiu, Jain 1989).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._sent = 0
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Waits for its turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._sent < self._limit)
            self._sent += 1
        try:
            yield
        finally:
            with self._changed:
                self._sent -= 1
                self._changed.notify_all()

    def increase(self) -> None:
        with self._changed:
            self._limit = min(self._limit + 1 / self._limit, self._most)

    def decrease(self) -> None:
        with self._changed:
            self._limit = max(self._limit / 2, 1)


class Asker:
    """Asks about one picture at a time, from any thread.

    `model` is the version as it was when the evaluation began.
    """

    def __init__(
        self,
        client: Client,
        model: pb.Model,
        classes: Classes,
        *,
        concurrency: int,
        patience_s: float,
    ) -> None:
        self._client = client
        self._model = model
        self._classes = classes
        self._patience_s = patience_s
        self._limiter = Limiter(concurrency)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.retries: Counter[str] = Counter()

    def stop(self) -> None:
        """No picture is asked about again."""
        self._stopping.set()

    def ask(self, item: Labelled) -> Result:
        """
        Raises:
            EvaluationError: another manifest answered, the version is gone, or nothing answers.
            ConvoyError: the gateway cannot be asked, as without a key.
        """
        truth = self._classes.find(item.label)
        if truth is None:
            message = self._classes.explain(item.label)
            return Result(item.name, item.label, excluded=UNKNOWN_LABEL, message=message)
        try:
            content = read_picture(item.path)
            answer = self._insist(lambda: self._send(content))
        except OSError as error:
            message = error.strerror or str(error)
            return Result(item.name, item.label, truth, excluded=UNREADABLE, message=message)
        except (BadImage, InvalidRequest, ServerFault) as error:
            reason = error.reason or REFUSED
            return Result(item.name, item.label, truth, excluded=reason, message=str(error))
        self._check_version(answer)
        best = tuple(class_.index for class_ in answer.classes)
        scores = tuple(class_.score for class_ in answer.classes)
        return Result(item.name, item.label, truth, best, scores)

    def default_version(self) -> str:
        """The version that the gateway gives to who asks for none.

        Raises:
            EvaluationError: nothing answers.
            ConvoyError: the gateway cannot be asked.
        """
        return self._insist(lambda: self._client.model(self._model.name).version)

    def _insist(self, ask: Callable[[], T]) -> T:
        """Asks until there is an answer, or an error that another request would not change."""
        began_s, faults, backoff_s = time.monotonic(), 0, INITIAL_BACKOFF_S
        with self._limiter.slot():
            while True:
                try:
                    return ask()
                except ServerFault:
                    faults += 1
                    if faults == MAX_FAULTS:
                        raise
                except (Overloaded, Unavailable, DeadlineExceeded) as error:
                    self._note(error, time.monotonic() - began_s)
                    pause_s = max(backoff_s, error.retry_after_s or 0)
                    self._stopping.wait(min(pause_s, MAX_BACKOFF_S))
                    backoff_s *= 2

    def _send(self, content: bytes) -> Classification:
        if self._stopping.is_set():
            raise Unavailable("stopped")
        model = self._model
        try:
            answer = self._client.classify(
                content, model=model.name, version=model.version, top_k=TOP, min_score=0
            )
        except NotFound as error:
            if self._is_loading():  # by a gateway that was restarted
                raise Unavailable(str(error)) from error
            raise EvaluationError(
                f"{model.name} version {model.version} is no longer served: {error}; a gateway "
                "keeps the version before the newest with --keep-loaded 2."
            ) from error
        except Overloaded as error:
            if GRPC_TOO_LARGE in str(error):
                raise BadImage(str(error), "IMAGE_TOO_LARGE") from error
            raise
        self._limiter.increase()
        return answer

    def _is_loading(self) -> bool:
        try:
            model = self._client.model(self._model.name, self._model.version)
        except NotFound:
            return False
        return model.state == pb.STATE_LOADING

    def _note(self, error: ConvoyError, waited_s: float) -> None:
        if self._stopping.is_set() or waited_s > self._patience_s:
            raise EvaluationError(f"No answer for {self._patience_s:.0f} s: {error}") from error
        self._limiter.decrease()
        with self._lock:
            self.retries[type(error).__name__] += 1

    def _check_version(self, answer: Classification) -> None:
        if answer.manifest_digest != self._model.manifest_digest:
            raise EvaluationError(
                f"{self._model.name} version {self._model.version} was replaced while it was "
                f"evaluated: manifest {answer.manifest_digest[:12]} answers, and it was "
                f"{self._model.manifest_digest[:12]} at the beginning."
            )


def evaluate(
    client: Client,
    model: pb.Model,
    truth: Truth,
    results: ResultsFile | None = None,
    *,
    total: int | None = None,
    concurrency: int = 16,
    patience_s: float = PATIENCE_S,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """The figures of all pictures; those in `results` are not asked about again.

    Raises:
        EvaluationError: `results` are those of other pictures, or as for Asker.ask. What was
            answered until then is in `results`.
        ConvoyError, OSError: the gateway or the file of results fails.
    """
    evaluation = Evaluation(Tally(len(model.labels)))
    asker = Asker(
        client, model, Classes(model.labels), concurrency=concurrency, patience_s=patience_s
    )
    evaluation.retries = asker.retries
    items = iter(truth)
    for result in resumed(items, results):
        evaluation.tally.add(result)
        evaluation.resumed += 1
    reporter.progress("Asking the gateway", evaluation.resumed, total, "pictures")
    with closing(answers(asker, items, concurrency)) as asked:
        for done, result in enumerate(asked, start=evaluation.resumed + 1):
            if results:
                results.append(result)
            evaluation.tally.add(result)
            reporter.progress("Asking the gateway", done, total, "pictures")
    evaluation.default_version = asker.default_version()
    return evaluation


def resumed(items: Iterator[Labelled], results: ResultsFile | None) -> Iterator[Result]:
    """The results that are there, which are those of the first of the pictures."""
    for number, result in enumerate(results.resume() if results else (), start=1):
        item = next(items, None)
        if item is None or (item.name, item.label) != (result.path, result.label):
            there = f"{item.name!r}, {item.label!r}" if item else "there is none"
            raise EvaluationError(
                f"The pictures are not those of the results: number {number} was "
                f"{result.path!r}, {result.label!r}, and now {there}. Give another --out."
            )
        yield result


def answers(
    asker: Asker, items: Iterable[Labelled], concurrency: int
) -> Generator[Result, None, None]:
    """In the order of the pictures; few are ahead of the one that is waited for."""
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(concurrency)
    try:
        for item in items:
            pending.append(executor.submit(asker.ask, item))
            if len(pending) >= WAITING_PER_REQUEST * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BaseException:  # what is asked meanwhile is not awaited for long
        asker.stop()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
