"""Evaluations of LeNet-5 behind real gateways, with digits that scikit-learn carries."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from convoy import Client, NotFound, ServerFault, Unavailable
from convoy.v1 import classifier_pb2 as pb
from export.errors import EvaluationError
from export.evaluate import run as evaluate_from_shell
from export.evaluation import asking
from export.evaluation.asking import Evaluation, Limiter, evaluate, survey
from export.evaluation.results import ResultsFile
from export.evaluation.tally import TOP, as_dict
from export.evaluation.truth import MAX_FILE_BYTES, Classes, Truth
from export.progress import SILENT, Reporter
from tests.conftest import EditFacts, RunningGateway, Serve
from tests.export.labelled import write_digits
from tests.export.recorder import Recorder
from tests.harmful_graphs import loop_while_bright

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits")
    write_digits(path, COUNT)
    return path


@pytest.fixture
def client(lenet_gateway: Any) -> Iterator[Client]:
    with Client(lenet_gateway.grpc) as client:
        yield client


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


class Meanwhile(Reporter):
    """Does something once so many pictures are answered."""

    def __init__(self, completed: int, action: Callable[[], None]) -> None:
        self._completed, self._action = completed, action

    def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
        if completed == self._completed:
            self._action()


def interrupt() -> None:
    raise KeyboardInterrupt


def run(
    client: Client, source: Path, out: Path | None = None, reporter: Reporter = SILENT
) -> Evaluation:
    model = client.model("lenet5")
    if out is None:
        return evaluate(client, model, Truth(source), reporter=reporter)
    with ResultsFile(out, model) as results:
        return evaluate(client, model, Truth(source), results, reporter=reporter)


def repeated(folder: Path, tmp_path: Path, rows: int) -> Path:
    """A table that has one picture of each label again and again."""
    pictures = [next(label.iterdir()) for label in sorted(folder.iterdir())]
    lines = [f"{path},{path.parent.name}" for path in pictures]
    path = tmp_path / "truth.csv"
    path.write_text("path,label\n" + "".join(f"{lines[n % len(lines)]}\n" for n in range(rows)))
    return path


def test_each_picture_is_answered_and_counted(client: Client, folder: Path, out: Path) -> None:
    recorder = Recorder()
    evaluation = run(client, folder, out, recorder)
    assert evaluation.tally.total == COUNT and not evaluation.tally.excluded
    assert evaluation.tally.top1 >= COUNT - 1
    assert 0 < evaluation.tally.calibration_error < 0.2
    assert [completed for _, completed, _ in recorder.reports] == list(range(COUNT + 1))
    assert [len(best) for best in read_best(out)] == [TOP] * COUNT


def read_best(out: Path) -> list[list[int]]:
    """The classes of each answer."""
    _, *lines = out.read_text().splitlines()
    return [json.loads(line)["best"] for line in lines]


def test_a_wrong_label_is_a_confusion_and_a_confident_wrong_answer(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    seven = next((folder / "7").iterdir())
    source = tmp_path / "truth.csv"
    source.write_text(f"path,label\n{seven},2\n{seven},7\n")
    figures = as_dict(run(client, source).tally, client.model("lenet5").labels)
    assert (figures["images"], figures["top1_correct"]) == (2, 1)
    assert figures["confusions"] == [{"label": "2", "answer": "7", "images": 1}]
    (worst,) = figures["worst"]
    assert (worst["path"], worst["label"], worst["answer"]) == (str(seven), "2", "7")
    assert worst["score"] > 0.9


@pytest.mark.parametrize("stopped_after", [0, 1, 9, COUNT - 1])
def test_an_interrupted_evaluation_continues_with_the_same_figures(
    client: Client, folder: Path, out: Path, stopped_after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(client, folder, out, Meanwhile(stopped_after, interrupt))
    assert len(out.read_text().splitlines()) == 1 + stopped_after
    with out.open("a") as file:  # as if it had been stopped while it wrote
        file.write('{"path": "0/0')
    continued = run(client, folder, out)
    labels = client.model("lenet5").labels
    assert continued.resumed == stopped_after
    assert as_dict(continued.tally, labels) == as_dict(run(client, folder).tally, labels)
    assert run(client, folder, out).resumed == COUNT


def test_what_is_no_picture_or_has_no_label_of_the_network_is_left_out_with_its_reason(
    client: Client, folder: Path, out: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(folder, tmp_path / "digits")
    (source / "3" / "notes.txt").write_text("three")
    (source / "3" / "empty.png").touch()
    (source / "3" / "lost.png").symlink_to("nowhere")
    os.mkfifo(source / "3" / "pipe.png")
    for name, mebibytes in (("large", 20), ("larger", 40)):  # than a picture, than a message
        with (source / "3" / f"{name}.png").open("wb") as file:
            file.truncate(mebibytes << 20)
    with (source / "3" / "vast.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    shutil.copytree(source / "7", source / "seven")
    with_reasons = run(client, source, out).tally
    assert with_reasons.total == COUNT
    assert with_reasons.excluded == {
        "UNKNOWN_LABEL": len([*(source / "seven").iterdir()]),
        "IMAGE_FORMAT_UNSUPPORTED": 1,
        "IMAGE_DECODE_FAILED": 1,
        "IMAGE_TOO_LARGE": 2,
        "UNREADABLE_FILE": 3,
    }
    assert with_reasons.examples["UNREADABLE_FILE"] == [
        "3/lost.png: No such file or directory",
        "3/pipe.png: not a file",
        "3/vast.png: 64 MiB, of at most 64",
    ]
    again = run(client, source, out)
    assert again.resumed == COUNT + with_reasons.excluded.total()
    assert again.tally.excluded == with_reasons.excluded


def test_the_survey_says_before_it_asks_what_will_be_left_out(folder: Path) -> None:
    known = survey(Truth(folder), Classes([pb.Label(name=str(n)) for n in range(9)]))
    assert known.total == COUNT and known.unknown == len([*(folder / "9").iterdir()])
    assert known.examples == ("no class is called '9'; there is '0'",)
    with pytest.raises(EvaluationError, match=r"None of the 24 pictures .* no class is called '0'"):
        survey(Truth(folder), Classes([pb.Label(name="zero")]))


def test_an_empty_folder_has_no_labelled_pictures(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(EvaluationError, match="no labelled pictures: expected is a folder that"):
        survey(Truth(tmp_path), Classes([pb.Label(name="zero")]))


def test_results_of_other_pictures_are_refused(
    client: Client, folder: Path, out: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(folder, tmp_path / "digits")
    run(client, source, out)
    before = out.read_bytes()
    new = source / "0" / "000-new.png"
    shutil.copy(next((source / "0").iterdir()), new)
    with pytest.raises(EvaluationError, match=r"number 1 was .*, and now '0/000-new.png', '0'"):
        run(client, source, out)
    new.unlink()
    shutil.rmtree(source / "9")
    with pytest.raises(EvaluationError, match=r"'9', and now there is none"):
        run(client, source, out)
    assert out.read_bytes() == before


def test_few_pictures_wait_however_many_there_are(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    listed = answered = most = 0

    class Counted(Truth):
        def __iter__(self) -> Any:
            nonlocal listed, most
            for item in super().__iter__():
                listed += 1
                most = max(most, listed - answered)
                yield item

    class Answered(Reporter):
        def progress(self, task: str, completed: int, total: int | None, unit: str = "") -> None:
            nonlocal answered
            answered = completed

    source = Counted(repeated(folder, tmp_path, 200))
    evaluate(client, client.model("lenet5"), source, concurrency=3, reporter=Answered())
    assert answered == 200 and most == 3 * asking.WAITING_PER_REQUEST


def test_so_many_requests_are_sent_at_once_and_no_more(lenet_gateway: Any, folder: Path) -> None:
    in_flight = most = 0
    lock, together = threading.Lock(), threading.Barrier(3)

    class Counted(Client):
        def classify(self, *args: Any, **options: Any) -> Any:
            nonlocal in_flight, most
            with lock:
                in_flight += 1
                most = max(most, in_flight)
            together.wait(30)  # until there are three, as there are each time: 24 are eight times 3
            try:
                return super().classify(*args, **options)
            finally:
                with lock:
                    in_flight -= 1

    with Counted(lenet_gateway.grpc) as client:
        evaluation = evaluate(client, client.model("lenet5"), Truth(folder), concurrency=3)
    assert evaluation.tally.total == COUNT and not evaluation.retries
    assert most == 3


def test_who_is_told_when_to_come_back_comes_back_then(
    serve: Serve, shipped_lenet5: Path, folder: Path, tmp_path: Path
) -> None:
    """The first pauses of its own would be 0.1 and 0.2 s: five requests for each picture."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(b"convoy_secret").hexdigest()
    keys.write_text(f'[slow]\nsha256 = "{digest}"\nrequests_per_s = 0.5\nburst = 1\n')
    gateway = serve(
        f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys}"
    )
    gateway.wait_until_ready()
    with Client(gateway.grpc, api_key="convoy_secret") as client:
        model = client.model("lenet5")
        source = Truth(repeated(folder, tmp_path, 3))
        evaluation = evaluate(client, model, source, concurrency=1)
    assert evaluation.tally.total == 3
    assert 3 <= evaluation.retries["Overloaded"] <= 6


@pytest.mark.parametrize(("faults", "is_answered"), [(2, True), (3, False)])
def test_a_picture_that_the_server_fails_at_is_asked_about_three_times(
    lenet_gateway: Any, folder: Path, tmp_path: Path, faults: int, is_answered: bool
) -> None:
    asked = 0

    class Faulty(Client):
        """Its server fails so many times."""

        def classify(self, *args: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked <= faults:
                raise ServerFault("the network failed", "INFERENCE_FAILED")
            return super().classify(*args, **options)

    with Faulty(lenet_gateway.grpc) as client:
        source = Truth(repeated(folder, tmp_path, 1))
        evaluation = evaluate(client, client.model("lenet5"), source, concurrency=1)
    assert asked == 3
    assert evaluation.tally.excluded == ({} if is_answered else {"INFERENCE_FAILED": 1})


def test_an_overload_halves_the_requests_that_are_sent_at_once() -> None:
    limiter = Limiter(4)
    assert can_send(limiter, 4)
    limiter.decrease()
    assert can_send(limiter, 2) and not can_send(limiter, 3, patience_s=0.2)
    for _ in range(4):
        limiter.increase()  # by about one for each round of answers
    assert can_send(limiter, 3) and not can_send(limiter, 5, patience_s=0.2)


def can_send(limiter: Limiter, count: int, patience_s: float = 30) -> bool:
    """Whether so many requests have a slot at once."""
    together = threading.Barrier(count, timeout=patience_s)

    def send(_: int) -> bool:
        with limiter.slot():
            try:
                together.wait()
            except threading.BrokenBarrierError:
                return False
        return True

    with ThreadPoolExecutor(count) as threads:
        return all(threads.map(send, range(count)))


def test_a_gateway_that_answers_with_another_manifest_ends_the_evaluation(
    client: Client, folder: Path, out: Path
) -> None:
    model = client.model("lenet5")
    model.manifest_digest = "0123456789abcdef"
    with (
        ResultsFile(out, model) as results,
        pytest.raises(EvaluationError, match=r"version 1 was replaced .* 0123456789ab at the beg"),
    ):
        evaluate(client, model, Truth(folder), results)
    assert len(out.read_text().splitlines()) == 1


class Restartable:
    """A gateway on one address, with room for four images; it is started where it is needed."""

    def __init__(self, serve: Serve, repository: Path, address: str) -> None:
        self.repository, self.address = repository, address
        self._serve = serve
        self._running: RunningGateway | None = None

    def start(self) -> RunningGateway:
        if self._running is None:
            options = [f"--repository={self.repository}", f"--grpc-address={self.address}"]
            self._running = self._serve(*options, "--max-in-flight=4")
            self._running.wait_until_ready()
        return self._running

    def stop(self) -> None:
        if self._running:
            self._running.stop()
        self._running = None


@pytest.fixture(scope="module")
def restartable(
    serve_together: Serve, shipped_lenet5: Path, tmp_path_factory: pytest.TempPathFactory
) -> Restartable:
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(shipped_lenet5, folder / shipped_lenet5.name)
    return Restartable(serve_together, folder, f"unix:{folder}/grpc")


def is_gone(client: Client) -> bool:
    try:
        client.model("lenet5", "2")
    except NotFound:
        return True
    return False


def set_thresholds(facts: pb.Model) -> None:
    for label in facts.labels:
        label.threshold = 1


def test_a_version_that_arrives_or_leaves_meanwhile_is_reported(
    restartable: Restartable, folder: Path, out: Path, tmp_path: Path, edit_facts: EditFacts
) -> None:
    gateway, repository = restartable.start(), restartable.repository
    source = repeated(folder, tmp_path, 100)
    with Client(restartable.address) as client:

        def publish() -> None:
            staged = tmp_path / "lenet5.v2"
            shutil.copytree(repository / "lenet5.v1", staged)
            edit_facts(staged, set_thresholds)
            staged.rename(repository / "lenet5.v2")
            gateway.wait_for(lambda: client.model("lenet5").version == "2")

        def remove() -> None:
            shutil.rmtree(repository / "lenet5.v2")
            gateway.wait_for(lambda: is_gone(client))

        evaluation = run(client, source, out, Meanwhile(10, publish))
        assert evaluation.tally.total == 100
        assert evaluation.default_version == "2"
        with pytest.raises(EvaluationError, match=r"version 2 is no longer served.*--keep-loaded"):
            run(client, source, tmp_path / "2.jsonl", Meanwhile(10, remove))
        best = read_best(tmp_path / "2.jsonl")
        assert 10 <= len(best) < 100
        assert {len(classes) for classes in best} == {TOP}, "no threshold leaves any out"
        with pytest.raises(EvaluationError, match="has the results of lenet5 version 2"):
            run(client, source, tmp_path / "2.jsonl")


def test_an_overloaded_or_restarted_gateway_is_asked_until_it_answers(
    restartable: Restartable, folder: Path, tmp_path: Path
) -> None:
    restartable.start()
    calls, starting = itertools.count(1), threading.Lock()

    class Missing(Client):
        """With the 20th request the gateway is stopped; who misses it starts it again."""

        def classify(self, *args: Any, **options: Any) -> Any:
            if next(calls) == 20:
                restartable.stop()
            try:
                return super().classify(*args, **options)
            except Unavailable:
                with starting:
                    restartable.start()
                raise

    with Missing(restartable.address) as client:
        model = client.model("lenet5")
        evaluation = evaluate(client, model, Truth(repeated(folder, tmp_path, 60)))
    assert evaluation.tally.total == 60 and not evaluation.tally.excluded
    assert evaluation.retries["Overloaded"] > 0 and evaluation.retries["Unavailable"] > 0


def test_a_version_that_is_loading_is_waited_for(
    restartable: Restartable, shipped_lenet5: Path, folder: Path, tmp_path: Path
) -> None:
    """As after a restart of the gateway; this one is never done."""
    gateway = restartable.start()
    loading = shutil.copytree(shipped_lenet5, tmp_path / "lenet5.v3")
    loop_while_bright(loading)
    loading = loading.rename(restartable.repository / loading.name)
    with Client(restartable.address) as client:
        gateway.wait_for(lambda: is_loading(client))
        with pytest.raises(EvaluationError, match=r"lenet5 version 3 is not ready: \w+"):
            evaluate_from_shell("lenet5", folder, "3", restartable.address, None, 1)
        model = client.model("lenet5")
        model.version = "3"  # as if it had been ready at the beginning
        with pytest.raises(EvaluationError, match="No answer for 0 s: version 3 of lenet5 is not"):
            evaluate(client, model, Truth(folder), concurrency=1, patience_s=0.2)
    shutil.rmtree(loading)


def is_loading(client: Client) -> bool:
    try:
        return client.model("lenet5", "3").state == pb.STATE_LOADING
    except NotFound:
        return False


def test_a_gateway_that_does_not_come_back_ends_the_evaluation(
    restartable: Restartable, folder: Path
) -> None:
    restartable.start()
    with Client(restartable.address) as client:
        model = client.model("lenet5")
        reporter = Meanwhile(1, restartable.stop)
        with pytest.raises(EvaluationError, match="No answer for 0 s"):
            evaluate(client, model, Truth(folder), concurrency=1, patience_s=0.2, reporter=reporter)
