import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from convoy.v1 import classifier_pb2 as pb
from export.architectures import alexnet, resnet
from export.catalog import CATALOG, find
from export.compare import compare
from export.layers import describe_module, describe_network
from export.repository.config import write_config
from export.repository.layout import MODEL_FILES
from export.study.figures import (
    ServedFile,
    compute_row,
    depth,
    find_served_file,
    render_accuracy,
    render_megabytes,
)
from export.study.latency import STAGES, measure
from export.study.reported_figures import PAPERS, REPORTED, TABLE_1, ReportedAccuracy, accuracy
from export.study.tradeoffs import BottleneckCost, head, shortcut_costs
from tests.export.conftest import RunScript
from tests.export.recorder import Recorder

ROOT = Path(__file__).parents[2]
FIGURES = json.loads((ROOT / "tests" / "data" / "architectures.json").read_text())["networks"]


def command(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(compare)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


# ---------------------------------------------------------------------------------- the figures


@pytest.mark.parametrize("name", sorted(set(FIGURES) & set(CATALOG)))
def test_row_has_the_figures_of_the_paper(name: str, tmp_path: Path) -> None:
    shown = compute_row(find(name), tmp_path)
    totals = FIGURES[name]["totals"]
    assert (shown.parameters, shown.macs) == (totals["parameters"], totals["macs"])
    assert shown.weights_bytes == 4 * totals["parameters"]
    assert shown.served is None


@pytest.mark.parametrize("name", CATALOG)
def test_depth_is_what_the_papers_count(name: str) -> None:
    others = {
        "lenet5": 5,  # without the two sub-samplings
        "alexnet": 8,
        "alexnet_2012": 8,
        "vgg_digits": 9,
        "nin": 12,
        "nin_cifar10": 9,
        "nin_digits": 9,
        "googlenet": 22,
        "googlenet_2014": 22,
        "inception_digits": 10,
        "inception_v3": 48,
    }
    in_the_name = re.search(r"\d+", name)
    assert depth(find(name)) == (others[name] if name in others else int(in_the_name[0]))  # type: ignore[index]


def test_a_newest_version_that_is_a_plan_has_the_plans_size(tmp_path: Path) -> None:
    for folder, file, size in (("nin.v1", "onnx", 10), ("nin.v2", "plan", 20)):
        (tmp_path / folder / "1").mkdir(parents=True)
        (tmp_path / folder / MODEL_FILES[file]).write_bytes(bytes(size))
        model = pb.Model(manifest=pb.Manifest(format=file))
        write_config(tmp_path / folder, model, max_batch_size=8)
    assert find_served_file("nin", tmp_path) == ServedFile("nin.v2", file_bytes=20)
    code, stdout, stderr = command("nin", "--repository", str(tmp_path))
    assert (code, stderr) == (0, "") and "Served: nin.v2" in stdout


def test_newest_served_version_is_the_highest_number(tmp_path: Path) -> None:
    for folder in ("nin.v9", "nin.v10", "nin.v11.staging", "nin.v12.withdrawn", "nin_cifar10.v13"):
        (tmp_path / folder / "1").mkdir(parents=True)
        (tmp_path / folder / "1" / "model.onnx").write_bytes(b"\0" * len(folder))
    assert find_served_file("nin", tmp_path) == ServedFile("nin.v10", file_bytes=len("nin.v10"))
    assert find_served_file("vgg16", tmp_path) is None


# ------------------------------------------------------------------------------- what is printed


def test_all_of_the_catalog_is_published_and_nothing_else() -> None:
    assert set(REPORTED) == set(CATALOG)
    for network in CATALOG.values():
        assert str(PAPERS[network.paper].year) in network.paper


def test_each_checkpoint_has_its_accuracy_the_default_one_first() -> None:
    for network in CATALOG.values():
        sources = [figure.source for figure in accuracy(network)]
        checkpoints = [checkpoint.source for checkpoint in network.checkpoints]
        assert sources[: len(checkpoints)] == checkpoints
        assert not [
            source for source in sources[len(checkpoints) :] if source.startswith("imagenet")
        ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", [(80.858, 95.434), (76.13, 92.862), (77.1, 93.3)]),
        ("vgg16", [(71.592, 90.382)]),
        ("inception_v3", [(77.294, 93.45), (78.8, 94.4)]),
        ("googlenet_2014", [(None, 89.93), (None, 93.33), (68.7, 88.9)]),
        ("plain34", [(71.46, None)]),
    ],
)
def test_accuracy_is_what_is_right_and_papers_print_what_is_wrong(
    name: str, expected: list[tuple[float | None, float | None]]
) -> None:
    assert [(figure.top1, figure.top5) for figure in accuracy(find(name))] == expected


def test_accuracy_measured_here_follows_the_worst_first() -> None:
    measured = json.loads((ROOT / "export" / "weights" / "lenet5.json").read_text())["accuracy"]
    shares = sorted(round(100 * figure["correct"] / figure["total"], 1) for figure in measured)
    of_digits = [figure.top1 for figure in accuracy(find("lenet5")) if figure.source == "digits"]
    assert of_digits == shares
    assert accuracy(find("lenet5"))[0].source == "paper"


def test_table_1_is_the_papers() -> None:
    printed = FIGURES["googlenet_2014"]["table_1"].values()
    expected = [(figure["printed_parameters_k"], figure["printed_macs_m"]) for figure in printed]
    assert list(TABLE_1.values()) == expected
    blocks = {block.name: block for block in describe_network(find("googlenet_2014")).blocks}
    for names, each in zip(TABLE_1, printed, strict=True):
        assert sum(blocks[name].weights for name in names) == each["weights"]
        assert sum(blocks[name].macs for name in names) == each["macs"]


def reason(name: str, figure: str) -> str:
    return next(figure_.why for figure_ in REPORTED[name].printed if figure_.figure == figure)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_reasons_know_what_the_convolutions_of_vgg_cost(name: str) -> None:
    layers = describe_network(find(name)).layers
    convolutions = sum(layer.macs for layer in layers if layer.kind == "convolution")
    assert f"{convolutions / 1e9:.3f}" in reason(name, "macs")


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_reasons_know_what_the_papers_stride_costs(name: str) -> None:
    with torch.device("meta"):
        network = getattr(resnet, name)().eval()
    for block in network.modules():
        if isinstance(block, resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    macs = describe_module(network, 3, 224).totals.macs
    assert f"{macs / 1e9:.3f}" in reason(name, "macs")


def test_reasons_know_what_alexnet_is_without_its_groups() -> None:
    with torch.device("meta"):
        network = alexnet.alexnet_2012().eval()
        for name in ("conv2", "conv4", "conv5"):
            grouped = network.get_submodule(name)
            assert isinstance(grouped, nn.Conv2d)
            whole = nn.Conv2d(grouped.in_channels, grouped.out_channels, 3)
            whole.weight = nn.Parameter(grouped.weight.repeat(1, 2, 1, 1))
            setattr(network, name, whole)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert f"{parameters:,}" in reason("alexnet_2012", "parameters")


# ----------------------------------------------------------------------------------- the lessons


def test_bottleneck_of_the_course_notes_saves_what_they_say() -> None:
    notes = BottleneckCost(side=28, channels=192, kernel=5, filters=32, reduced=16)
    assert notes.direct == 120_422_400
    assert (notes.squeeze, notes.expand) == (2_408_448, 10_035_200)
    assert notes.both == 12_443_648
    assert round(notes.times_fewer, 2) == 9.68


def test_bottleneck_of_the_course_notes_is_that_of_googlenets_first_module() -> None:
    layers = describe_network(find("googlenet_2014")).layers
    branch = [layer.macs for layer in layers if layer.name.startswith("inception3a.branch3")]
    notes = BottleneckCost(side=28, channels=192, kernel=5, filters=32, reduced=16)
    assert [macs for macs in branch if macs] == [notes.squeeze, notes.expand]


def test_shortcuts_cost_nothing_but_for_their_projections() -> None:
    more = {cost.network: (cost.more_parameters, cost.more_macs) for cost in shortcut_costs()}
    with torch.device("meta"):
        layers = describe_module(resnet.resnet34().eval(), 3, 224).layers
    projections = [layer for layer in layers if ".downsample." in layer.name]
    cost = (sum(it.parameters for it in projections), sum(it.macs for it in projections))
    assert cost == (173_824, 19_267_584)
    assert more == {
        "plain18": (0, 0),
        "resnet18, option A": (0, 0),
        "resnet18, option B": cost,
        "plain34": (0, 0),
        "resnet34, option A": (0, 0),
        "resnet34, option B": cost,
        "plain20_digits": (0, 0),
        "resnet20_digits, option A": (0, 0),
    }


@pytest.mark.parametrize(
    ("name", "linear", "share"),
    [
        ("alexnet_2012", 58_631_144, "96.2%"),
        ("vgg16", 123_642_856, "89.4%"),
        ("nin", 0, "0.0%"),
    ],
)
def test_parameters_sit_in_linear_layers(name: str, linear: int, share: str) -> None:
    figures = head(name)
    assert (figures.linear, f"{figures.share:.1%}") == (linear, share)


def test_lessons_take_other_sizes_and_networks() -> None:
    sizes = ("14", "480", "5", "48", "16")
    code, stdout, stderr = command("vgg11", "--lessons", "--bottleneck", *sizes, "--json")
    assert code == 0, stderr
    shown = json.loads(stdout)
    assert shown["bottleneck"] == {
        "side": 14,
        "channels": 480,
        "kernel": 5,
        "filters": 48,
        "reduced": 16,
        "direct": 112_896_000,
        "squeeze": 1_505_280,
        "expand": 3_763_200,
        "both": 5_268_480,
        "times_fewer": 112_896_000 / 5_268_480,
    }
    assert [linear_layer["name"] for linear_layer in shown["linear_layers"]] == ["vgg11"]
    assert len(shown["shortcuts"]) == 8


def test_lessons_are_printed_for_people() -> None:
    code, stdout, _ = command("--lessons")
    assert code == 0
    for figure in ("120,422,400", "12,443,648", "9.68", "19,267,584", "96.2%", "89.4%"):
        assert figure in stdout


# ----------------------------------------------------------------------------------- the command


def test_script_lays_the_networks_of_the_notes_side_by_side(run_script: RunScript) -> None:
    names = ["lenet5", "alexnet_2012", "vgg16", "resnet152", "nin", "googlenet"]
    shown = run_script("export/compare.py", *names)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert [line.split()[0] for line in lines if line.partition(" ")[0] in names] == names
    assert "resnet152 2015 He et al. 152 60,192,808 11,513,626,624 241 82.284 / 96.002" in lines
    assert "lenet5: paper, MNIST" in lines
    assert "vgg16, googlenet: imagenet1k_v1, ImageNet-1k validation, one centre crop" in lines


def test_json_has_the_same_for_programs(tmp_path: Path) -> None:
    code, stdout, _ = command("nin", "nin", "--json", "--repository", str(tmp_path))
    assert code == 0
    assert json.loads(stdout) == {
        "networks": [
            {
                "name": "nin",
                "year": 2013,
                "paper": "Lin et al.",
                "depth": 12,
                "parameters": 7_595_176,
                "macs": 1_100_188_800,
                "weights_bytes": 30_380_704,
                "served": None,
                "accuracy": [
                    {
                        "source": "the author's Caffe model",
                        "measured": "ImageNet-1k validation",
                        "top1": 59.36,
                        "top5": None,
                    }
                ],
            }
        ]
    }


def test_no_names_are_all_of_the_catalog() -> None:
    code, stdout, _ = command("--json")
    assert code == 0
    assert [network["name"] for network in json.loads(stdout)["networks"]] == list(CATALOG)


def test_unknown_network_is_answered_with_the_nearest() -> None:
    code, stdout, stderr = command("vgg16", "resnet151")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("No network is called 'resnet151': did you mean ")
    assert "resnet152" in stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lessons", "--measure"], "omit --measure"),
        (["--bottleneck", "7", "7", "7", "7", "7"], "add --lessons"),
        (["--lessons", "--bottleneck", "28", "192", "0", "32", "16"], "each at least 1"),
    ],
)
def test_options_that_contradict_are_wrong_usage(arguments: list[str], said: str) -> None:
    code, stdout, stderr = command(*arguments)
    assert (code, stdout) == (2, "")
    assert said in stderr


def test_sizes_and_shares_are_short() -> None:
    assert [render_megabytes(size) for size in (240_000, 9_990_000, 240_771_232)] == [
        "0.24",
        "9.99",
        "241",
    ]
    published = ReportedAccuracy("paper", "MNIST", top5=89.53)
    assert render_accuracy((published, ReportedAccuracy("paper", "else", 1, 2))) == "– / 89.53"
    assert render_accuracy(()) == "–"


# ------------------------------------------------------------------------------------- the speed


def test_speed_is_measured_alone_and_in_the_largest_batch() -> None:
    recorder = Recorder()
    alone, batched = measure(find("lenet5"), recorder, min_s=0.01)
    assert (alone.batch, batched.batch) == (1, find("lenet5").max_batch_size)
    for speed in (alone, batched):
        assert 0 < speed.p50_ms < 1000
        # A mean and a median of the same runs; a busy machine pulls them apart.
        assert 0.01 < speed.images_per_s * speed.p50_ms / 1000 / speed.batch < 10
    assert len(recorder.steps) == STAGES


def test_measured_speed_is_beside_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.compare.measure", partial(measure, min_s=0.01))
    code, stdout, stderr = command("lenet5", "--measure", "--json")
    assert code == 0, stderr
    shown = json.loads(stdout)
    (network,) = shown["networks"]
    assert [speed["batch"] for speed in network["speed"]] == [1, 8]
    assert shown["machine"].startswith("ONNX Runtime ")
