import dataclasses
import io
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from convoy import Client
from convoy.v1 import classifier_pb2 as pb
from export.catalog import find
from export.console import PublishedVersion
from export.errors import ParityError, ServedError
from export.proof.private_gateway import private_gateway
from export.proof.runtimes import onnx_runtime
from export.proof.served import pictures, served_rung
from export.repository.config import facts_json, read_facts, write_config
from export.repository.layout import MODEL_FILES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def staged(built_nin: PublishedVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, not yet published."""
    repository = tmp_path_factory.mktemp("staged")
    return shutil.copytree(built_nin.folder, repository / "tested.v3.staging")


def prove(folder: Path, root: Path = ROOT, triton: str | None = None) -> pb.ParityRung:
    """The served rung of a version's folder, behind the gateway of the checkout at root."""
    with private_gateway(folder, root=root, triton=triton) as client:
        return rung_of(client, folder)


def rung_of(
    client: Client, folder: Path, precision: str = "fp32", off_by: float = 0
) -> pb.ParityRung:
    """As if the file had that precision, and the CPU's answer to it differed by so much."""
    model = read_facts(folder)
    assert model
    model.name, model.version = "tested", "3"
    model.manifest_digest = facts_json(model)["manifest_digest"]
    model.manifest.precision = precision
    runtime = onnx_runtime(folder / MODEL_FILES["onnx"])
    return served_rung(
        client,
        model,
        dataclasses.replace(
            runtime, answer=lambda images: runtime.answer(images) + np.float32(off_by)
        ),
        f"ONNX {precision}",
        max_batch_size=8,
    )


def mutated(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A checkout whose gateway differs in one place."""
    shutil.copytree(ROOT / "server", tmp_path / "server")
    path = tmp_path / "server" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return tmp_path


def test_the_file_behind_the_gateway_answers_as_it_does_alone(staged: Path) -> None:
    rung = prove(staged)
    assert (rung.name, rung.images) == ("ONNX fp32 → served", 8)
    assert list(rung.batch_sizes) == [1, 2, 3, 8]
    assert rung.largest_difference < 1e-5
    assert (rung.top1_agreement, rung.top5_agreement) == (1, 1)


def test_the_file_behind_a_real_triton_answers_as_it_does_alone(
    staged: Path, start_triton: Callable[[Path], AbstractContextManager[str]]
) -> None:
    """And leaves nothing on it: a second proof loads the folder again."""
    with start_triton(staged.parent) as address:
        for _ in range(2):
            rung = prove(staged, triton=address)
            assert (rung.images, rung.top1_agreement) == (8, 1)
            assert rung.largest_difference < 1e-5
        with InferenceServerClient(address) as client:
            assert not client.is_model_ready(staged.name)


def test_a_gpu_may_round_less_than_fp32_otherwise_than_the_cpu(
    staged: Path, tmp_path: Path
) -> None:
    """8e-3 is what an H200 was seen to differ by; the gateway says here that one computed."""
    on_gpu = mutated(tmp_path, "runners/in_process.py", "network.device,", '"gpu",')
    with private_gateway(staged, root=on_gpu) as client:
        for precision in ("fp16", "int8"):
            rung = rung_of(client, staged, precision, off_by=8e-3)
            assert rung.largest_difference == pytest.approx(8e-3, abs=1e-5)
        with pytest.raises(ParityError, match=r"and 0\.001 is allowed"):
            rung_of(client, staged, "fp32", off_by=8e-3)
    with (
        private_gateway(staged) as client,
        pytest.raises(ParityError, match=r"and 0\.001 is allowed"),
    ):
        rung_of(client, staged, "fp16", off_by=8e-3)


def test_the_build_stores_the_rung_and_the_batch_sizes_seen(built_nin: PublishedVersion) -> None:
    stored = read_facts(built_nin.folder)
    assert stored
    rung = stored.parity[-1]
    assert (rung.name, rung.tolerance) == ("ONNX fp32 → served", 1e-3)
    assert min(rung.batch_sizes_seen) >= 1 and max(rung.batch_sizes_seen) <= 8


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("round((side - crop) / 2)", "round((side - crop) / 2) + 1"),
        ("round((side - crop) / 2)", "(side - crop + 1) // 2"),
        ("return np.asarray(cut)\n", "return np.asarray(cut)[:, :, ::-1].copy()\n"),
    ],
    ids=["crop off by one pixel", "half a pixel rounded otherwise", "channels swapped"],
)
def test_a_gateway_that_sees_other_pixels_is_found_out(
    old: str, new: str, staged: Path, tmp_path: Path
) -> None:
    root = mutated(tmp_path, "preprocessing/photo.py", old, new)
    with pytest.raises(ParityError, match=r"(china|flower)\.jpg"):
        prove(staged, root)


def test_a_gateway_that_takes_other_labels_is_found_out(staged: Path, tmp_path: Path) -> None:
    root = mutated(
        tmp_path, "pipeline.py", "label=labels[index].name", "label=labels[index - 1].name"
    )
    with pytest.raises(ParityError, match="does not prove itself behind the gateway: golden image"):
        prove(staged, root)


def test_a_gateway_that_does_not_start_says_why(staged: Path, tmp_path: Path) -> None:
    root = mutated(tmp_path, "main.py", "settings = resolved.settings", "raise SystemExit('ill')")
    with pytest.raises(ServedError, match=r"did not serve tested.*ill"):
        prove(staged, root)


def test_labels_are_compared_with_the_models_own(
    built_nin: PublishedVersion, tmp_path: Path
) -> None:
    """Facts that were changed between building and serving, golden images and all."""
    folder = shutil.copytree(built_nin.folder, tmp_path / "tested.v3.staging")
    model = read_facts(folder)
    assert model
    with private_gateway(folder) as client:
        model.name, model.version = "tested", "3"
        model.manifest_digest = facts_json(model)["manifest_digest"]
        model.labels.reverse()
        runtime = onnx_runtime(folder / MODEL_FILES["onnx"])
        with pytest.raises(ParityError, match="The gateway calls class"):
            served_rung(client, model, runtime, "a", max_batch_size=8)
        model.labels.reverse()
        model.manifest_digest = "0" * 64
        with pytest.raises(ParityError, match="and 000000000000 was requested"):
            served_rung(client, model, runtime, "a", max_batch_size=8)


@pytest.mark.parametrize("resize", [32, 40, 256])
def test_pictures_of_photos_need_only_be_cropped(resize: int) -> None:
    sent = pictures(pb.Preprocessing(photo=pb.Photo(resize=resize, crop=32)))
    assert sent.pixels.shape == (8, 32, 32, 3)
    sides = [Image.open(io.BytesIO(content)).size for content in sent.contents]
    assert {min(side) for side in sides} == {resize}
    assert {side[0] > side[1] for side in sides} == {True, False}
    whole = np.asarray(Image.open(io.BytesIO(sent.contents[0])))
    top, left = (round((side - 32) / 2) for side in whole.shape[:2])
    assert np.array_equal(sent.pixels[0], whole[top : top + 32, left : left + 32])


def test_pictures_of_digits_are_what_the_gateways_preparation_finds() -> None:
    sent = pictures(find("lenet5").preprocessing)
    assert sent.pixels.shape == (8, 32, 32, 1)
    assert len(set(sent.names)) == 8
    assert all(content.startswith(b"\x89PNG") for content in sent.contents)


def swap_two_labels(model: pb.Model) -> None:
    index = model.golden_images[0].expected[0].index
    model.labels[index].name, model.labels[index - 1].name = (
        model.labels[index - 1].name,
        model.labels[index].name,
    )


def test_a_version_that_is_not_what_was_built_does_not_prove_itself(
    built_nin: PublishedVersion, tmp_path: Path
) -> None:
    folder = shutil.copytree(built_nin.folder, tmp_path / "tested.v3.staging")
    model = read_facts(folder)
    assert model
    swap_two_labels(model)
    write_config(folder, model, 8)
    with pytest.raises(ParityError, match="does not prove itself behind the gateway: golden image"):
        prove(folder)
