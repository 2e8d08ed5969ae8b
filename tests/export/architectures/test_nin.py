import torch

from export.architectures.nin import NetworkInNetwork, max_pool, nin_cifar10, nin_digits


def test_pools_round_up_as_caffes_do() -> None:
    sizes = [max_pool()(torch.zeros(1, 1, size, size)).shape[2] for size in (54, 27, 13, 32, 16)]
    assert sizes == [27, 13, 6, 16, 8]


def scores(network: NetworkInNetwork) -> torch.Tensor:
    torch.manual_seed(0)
    channels = network.get_parameter("mlpconv1.0.weight").shape[1]
    logits: torch.Tensor = network.eval()(torch.randn(4, channels, 32, 32))
    return logits


def test_scores_are_means_of_maps_that_are_never_negative() -> None:
    network = nin_cifar10()
    logits = scores(network)
    maps = network[:-2](torch.randn(2, 3, 32, 32))
    assert maps.shape == (2, 10, 8, 8)
    assert maps.min() == 0
    torch.testing.assert_close(network[-2:](maps), maps.mean((2, 3)))
    assert logits.min() >= 0


def test_second_pool_for_cifar_averages_the_border_over_the_pixels_it_has() -> None:
    pooled = nin_cifar10().get_submodule("pool2")(torch.ones(1, 1, 16, 16))
    assert pooled.shape == (1, 1, 8, 8)
    assert torch.equal(pooled, torch.ones(1, 1, 8, 8))


def test_digit_form_has_no_relu_on_its_scores() -> None:
    assert scores(nin_digits()).min() < 0


def test_a_1x1_convolution_looks_at_one_pixel() -> None:
    block = nin_cifar10().get_submodule("mlpconv1")
    picture = torch.randn(1, 3, 9, 9)
    before = block(picture)
    picture[0, :, 4, 4] += 1
    changed = (block(picture) != before).any(1)[0]
    assert changed[2:7, 2:7].any()
    changed[2:7, 2:7] = False  # what the 5×5 convolution reaches, and nothing else does
    assert not changed.any()
