import json
from pathlib import Path

import pytest
import torch
from torch import nn

from export.architectures.googlenet import (
    DIGITS,
    PAPER,
    PUBLISHED,
    AuxiliaryHead,
    Form,
    GoogLeNet,
    Inception,
    Widths,
    googlenet,
    googlenet_2014,
    inception_digits,
)
from export.architectures.normalization import LocalResponseNorm, TransformInput
from export.layers import describe_module

DATA = Path(__file__).parents[2] / "data" / "architectures.json"


def parts(network: GoogLeNet, *names: str) -> list[str]:
    return [type(network.get_submodule(name)).__name__ for name in names]


def kernel(module: Inception) -> tuple[int, ...]:
    """Height and width of the kernels that table 1 calls 5×5."""
    return tuple(module.get_parameter("branch3.1.conv.weight").shape[2:])


def test_paper_has_a_true_5x5_and_biases() -> None:
    with torch.device("meta"):
        paper, published = googlenet_2014(), googlenet()
    assert kernel(paper.inception3a) == (5, 5)
    assert kernel(published.inception3a) == (3, 3)
    assert paper.conv1.conv.bias is not None
    assert published.conv1.conv.bias is None
    assert not [module for module in paper.modules() if isinstance(module, nn.BatchNorm2d)]


def test_paper_norms_the_responses_after_the_first_pool_and_before_the_second() -> None:
    with torch.device("meta"):
        paper = googlenet_2014().eval()
    ran: list[str] = []
    for name, module in paper.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    paper(torch.zeros(1, 3, 224, 224, device="meta"))
    assert parts(paper, "norm1", "norm2") == [LocalResponseNorm.__name__] * 2
    stem = "transform_input conv1 maxpool1 norm1 conv2 conv3 norm2 maxpool2 inception3a"
    assert ran[:9] == stem.split()
    # BVLC: alpha 1e-4 of the mean of five, so 2e-5 of their sum, and k 1.
    assert isinstance(paper.norm1, LocalResponseNorm)
    assert paper.norm1.alpha * 5 == pytest.approx(1e-4)
    assert paper.norm1.k == 1


def test_blocks_of_the_paper_are_the_rows_of_table_1() -> None:
    table = json.loads(DATA.read_text())["networks"]["googlenet_2014"]["table_1"]
    with torch.device("meta"):
        blocks = {
            block.name: block for block in describe_module(googlenet_2014().eval(), 3, 224).blocks
        }
    rows = {"conv1": ["conv1"], "conv2": ["conv2", "conv3"], "linear": ["fc"]}
    for name, figures in table.items():
        row = [blocks[each] for each in rows.get(name, [f"inception{name}"])]
        assert sum(block.weights for block in row) == figures["weights"], name
        assert sum(block.macs for block in row) == figures["macs"], name
    # The paper's own print agrees within what docs/models.md says of each.
    assert [
        name
        for name, figures in table.items()
        if abs(figures["macs"] / 1e6 - figures["printed_macs_m"]) > 1
    ] == ["conv1", "5a"]


def test_batch_norms_have_tensorflows_eps() -> None:
    with torch.device("meta"):
        norms = [module for module in googlenet().modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_module_joins_its_branches_in_the_order_of_table_1() -> None:
    module = Inception(DIGITS, 3, Widths(1, (2, 4), (2, 8), 16)).eval()
    x = torch.randn(2, 3, 6, 6)
    joined = module(x)
    assert joined.shape == (2, 1 + 4 + 8 + 16, 6, 6)
    assert torch.equal(joined[:, :1], module.branch1(x))
    assert torch.equal(joined[:, 5:13], module.branch3(x))
    assert torch.equal(joined[:, 13:], module.branch4(x))


def test_heads_speak_in_training_alone() -> None:
    with torch.device("meta"):
        network = googlenet_2014(aux_heads=True)
        image = torch.zeros(2, 3, 224, 224)
        assert [logits.shape for logits in network.train()(image)] == [(2, 1000)] * 3
        assert network.eval()(image).shape == (2, 1000)
        assert googlenet_2014().train()(image).shape == (2, 1000)
        # Logits, then the later head, then the earlier, as torchvision returns them.
        assert network.aux1 and network.aux2
        network.aux2.fc2 = nn.Linear(1024, 2)
        network.aux1.fc2 = nn.Linear(1024, 1)
        assert [each.shape[1] for each in network.train()(image)] == [1000, 2, 1]


@pytest.mark.parametrize(
    ("form", "starts", "width"), [(PAPER, (0, 3, 6, 9), 5), (PUBLISHED, (0, 3, 7, 10), 4)]
)
def test_windows_of_the_heads_pool(form: Form, starts: tuple[int, ...], width: int) -> None:
    head = AuxiliaryHead(form, 4, 10)
    ramp = torch.arange(14.0).expand(1, 4, 14, 14)
    pooled = head.pool(ramp)
    assert pooled.shape == (1, 4, 4, 4)
    assert pooled[0, 0, 0].tolist() == [start + (width - 1) / 2 for start in starts]


def test_input_is_transformed_where_the_published_weights_want_it() -> None:
    with torch.device("meta"):
        assert isinstance(googlenet().transform_input, TransformInput)
        assert isinstance(googlenet(transform_input=False).transform_input, nn.Identity)
        assert isinstance(googlenet_2014().transform_input, nn.Identity)


def test_published_form_takes_15_pixels() -> None:
    with torch.device("meta"):
        assert googlenet().eval()(torch.zeros(1, 3, 15, 15)).shape == (1, 1000)


def test_digit_form_has_three_modules_and_a_true_5x5() -> None:
    network = inception_digits()
    modules = [module for module in network.modules() if isinstance(module, Inception)]
    assert len(modules) == 3
    assert {kernel(module) for module in modules} == {(5, 5)}
