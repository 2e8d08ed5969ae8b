import torch
from torch import nn

from export.architectures.inception_v3 import (
    InceptionA,
    InceptionE,
    InceptionV3,
    average_pool,
    inception_v3,
)
from export.architectures.normalization import TransformInput


def on_meta(**options: bool) -> InceptionV3:
    with torch.device("meta"):
        return inception_v3(**options)


def test_batch_norms_have_tensorflows_eps() -> None:
    norms = [module for module in on_meta().modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_average_pools_count_the_border_as_zeros() -> None:
    assert average_pool()(torch.ones(1, 1, 3, 3))[0, 0, 0, 0].item() == torch.tensor(4 / 9)
    pools = [module for module in on_meta().modules() if isinstance(module, nn.AvgPool2d)]
    assert len(pools) == 9
    assert all(pool.count_include_pad for pool in pools)


def test_branches_are_joined_in_the_published_order() -> None:
    torch.manual_seed(0)
    module = InceptionA(8, pool=16).eval()
    x = torch.randn(1, 8, 5, 5)
    joined = module(x)
    assert joined.shape == (1, 64 + 64 + 96 + 16, 5, 5)
    assert torch.equal(joined[:, :64], module.branch1x1(x))
    assert torch.equal(joined[:, 64:128], module.branch5x5_2(module.branch5x5_1(x)))
    assert torch.equal(joined[:, 224:], module.branch_pool(module.pool(x)))


def test_last_modules_split_side_by_side_1x3_before_3x1() -> None:
    torch.manual_seed(0)
    module = InceptionE(8).eval()
    x = torch.randn(1, 8, 4, 4)
    threes = module.branch3x3_1(x)
    joined = module(x)
    assert joined.shape == (1, 2048, 4, 4)
    assert torch.equal(joined[:, 320:704], module.branch3x3_2a(threes))
    assert torch.equal(joined[:, 704:1088], module.branch3x3_2b(threes))
    assert module.branch3x3_2a.conv.kernel_size == (1, 3)


def test_head_speaks_in_training_alone() -> None:
    network = on_meta(aux_heads=True)
    image = torch.zeros(2, 3, 299, 299, device="meta")
    assert network.AuxLogits
    network.AuxLogits.fc = nn.Linear(768, 7, device="meta")
    assert [logits.shape[1] for logits in network.train()(image)] == [1000, 7]
    assert network.eval()(image).shape == (2, 1000)


def test_input_is_transformed_as_the_published_weights_want_it() -> None:
    assert isinstance(on_meta().transform_input, TransformInput)
    assert isinstance(on_meta(transform_input=False).transform_input, nn.Identity)


def test_75_pixels_are_enough() -> None:
    assert on_meta().eval()(torch.zeros(1, 3, 75, 75, device="meta")).shape == (1, 1000)
