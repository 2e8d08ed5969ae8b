import math

import onnx
import pytest
import torch

from export.architectures.lenet import C3_READS, LeNet5, RadialBasis, SubSampling, lenet5, squash


@pytest.fixture
def network() -> LeNet5:
    torch.manual_seed(0)
    return lenet5().eval()


def test_parameters_are_those_printed_in_the_paper(network: LeNet5) -> None:
    printed = {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164, "output": 0}
    counted = {
        name: sum(parameter.numel() for parameter in layer.parameters())
        for name, layer in network.named_children()
    }
    assert counted == printed
    assert sum(counted.values()) == 60_000


def test_state_dict_holds_the_parameters_and_the_scale_alone(network: LeNet5) -> None:
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 60_001


def test_each_c3_map_reads_the_maps_of_its_row_of_table_1(network: LeNet5) -> None:
    maps = torch.zeros(1, 6, 14, 14)
    silent = network.c3(maps)
    for before in range(6):
        maps.zero_()[:, before] = 1
        changed = (network.c3(maps) != silent).flatten(2).any(2).squeeze(0)  # 16
        assert changed.tolist() == [before in reads for reads in C3_READS]


def test_table_1_is_whole() -> None:
    assert [len(reads) for reads in C3_READS] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_READS)) == 16
    assert [sum(before in reads for reads in C3_READS) for before in range(6)] == [10] * 6
    # Three cyclic runs, then three cyclic runs of four, then two adjacent pairs apart.
    assert {frozenset((i + step) % 6 for step in range(3)) for i in range(6)} == {
        frozenset(reads) for reads in C3_READS[:6]
    }
    assert {frozenset((i + step) % 6 for step in range(4)) for i in range(6)} == {
        frozenset(reads) for reads in C3_READS[6:12]
    }
    assert {frozenset((i + step) % 6 for step in (0, 1, 3, 4)) for i in range(3)} == {
        frozenset(reads) for reads in C3_READS[12:15]
    }


def test_c3_kernels_start_wider_where_a_map_reads_less(network: LeNet5) -> None:
    of_three, of_six = network.c3.weight[:18], network.c3.weight[54:]
    assert 0.9 * 2.4 / 75 < of_three.abs().max() <= 2.4 / 75
    assert 0.9 * 2.4 / 150 < of_six.abs().max() <= 2.4 / 150


def test_codes_are_signs_as_far_apart_as_in_figure_3() -> None:
    codes = RadialBasis().codes
    assert codes.shape == (10, 84)
    assert set(codes.unique().tolist()) == {-1, 1}
    apart = {(a, b): int((codes[a] != codes[b]).sum()) for a in range(10) for b in range(a + 1, 10)}
    assert (min(apart.values()), max(apart.values())) == (12, 50)
    assert (apart[6, 8], apart[4, 7]) == (12, 50)


def test_codes_have_as_much_ink_as_in_figure_3() -> None:
    ink = (RadialBasis().codes > 0).sum(1)
    assert ink.tolist() == [35, 27, 33, 32, 41, 35, 39, 25, 43, 39]


def test_code_of_a_seven_is_its_picture() -> None:
    seven = (RadialBasis().codes[7] > 0).view(12, 7).tolist()
    assert seven[0] == [True] * 7
    assert seven[9] == [False, False, True, True, False, False, False]


def test_a_drawn_code_is_at_distance_0_of_its_digit_alone() -> None:
    output = RadialBasis()
    distances = output(output.codes)
    assert distances.diagonal().tolist() == [0] * 10
    assert distances[6, 8] == 4 * 12  # each of 12 pixels differs by 2


def test_distances_of_half_precision_features_do_not_overflow_or_round() -> None:
    far = -1.7159 * RadialBasis().codes
    exact = RadialBasis()(far.half().float())
    assert exact.max() > 512  # where float16 counts in steps of a half
    assert torch.equal(RadialBasis().half()(far.half()), exact)


def test_squash_goes_through_1_and_saturates() -> None:
    points = squash(torch.tensor([-1.0, 0.0, 1.0, 100.0]))
    assert points.tolist() == pytest.approx([-1, 0, 1, 1.7159], abs=1e-4)


def test_sub_sampling_sums_four_pixels() -> None:
    layer = SubSampling(2)
    with torch.no_grad():
        layer.coefficient[1], layer.bias[1] = 3, -1
    pixels = torch.arange(8.0).view(1, 2, 2, 2)
    assert layer(pixels).flatten().tolist() == [0.5 * 6, 3 * 22 - 1]


def test_probabilities_are_the_softmax_of_scaled_distances(network: LeNet5) -> None:
    image = torch.rand(3, 1, 32, 32)
    distances = network.distances(image).detach()
    assert distances.shape == (3, 10)
    odds = [math.exp(-0.1 * float(distance)) for distance in distances[0]]
    expected = [part / sum(odds) for part in odds]
    assert network(image).softmax(1)[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_scale_travels_with_the_weights(network: LeNet5) -> None:
    trained = network.state_dict() | {"scale": torch.tensor(0.066)}
    network.load_state_dict(trained)
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(network(image), -torch.tensor(0.066) * network.distances(image))


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_c3_becomes_one_plain_convolution_on_export(network: LeNet5) -> None:
    program = torch.onnx.export(
        network, (torch.zeros(2, 1, 32, 32),), dynamo=True, opset_version=18, verbose=False
    )
    assert program is not None
    graph: onnx.GraphProto = program.model_proto.graph
    constants = {each.name: tuple(each.dims) for each in graph.initializer}
    kernels = [constants[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    assert kernels == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 16, 5, 5)]
    assert not {"Gather", "ScatterND", "Pad", "Where"} & {node.op_type for node in graph.node}
