import pytest
import torch
from torch import nn

from export.architectures.normalization import LocalResponseNorm, TransformInput


@pytest.mark.parametrize(("size", "alpha", "k"), [(5, 1e-4, 2.0), (5, 2e-5, 1.0), (3, 0.3, 1.0)])
def test_response_norm_is_the_papers_formula(size: int, alpha: float, k: float) -> None:
    torch.manual_seed(0)
    a = 30 * torch.randn(2, 7, 3, 4, dtype=torch.float64)
    expected = torch.empty_like(a)
    for channel in range(7):
        total = torch.zeros(2, 3, 4, dtype=torch.float64)
        for other in range(max(0, channel - size // 2), min(6, channel + size // 2) + 1):
            total += a[:, other] ** 2
        expected[:, channel] = a[:, channel] / (k + alpha * total) ** 0.75
    b = LocalResponseNorm(size, alpha, 0.75, k)(a.float())
    torch.testing.assert_close(b.double(), expected, rtol=1e-5, atol=1e-5)


def test_response_norm_is_torchs_with_alpha_times_size() -> None:
    a = 30 * torch.randn(1, 96, 5, 5)
    torchs = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    assert torch.equal(LocalResponseNorm(5, 1e-4, 0.75, 2)(a), torchs(a))


def test_response_norm_of_half_precision_does_not_overflow() -> None:
    a = torch.full((1, 5, 2, 2), 300.0)  # 300² is beyond float16
    norm = LocalResponseNorm(5, 1e-4, 0.75, 2)
    b = norm.half()(a.half())
    assert b.dtype == torch.float16
    assert torch.equal(b, norm(a).half())
    assert b[0, 2, 0, 0].item() == pytest.approx(300 / (2 + 1e-4 * 5 * 300**2) ** 0.75, rel=1e-3)


def test_response_norm_squares_in_float32_in_the_graph() -> None:
    """A CPU cannot tell: it computes float16 graphs in float32."""
    half = torch.zeros(2, 5, 2, 2, dtype=torch.float16)
    graph = torch.export.export(LocalResponseNorm(5, 1e-4, 0.75, 2), (half,)).graph
    values = [node.meta.get("val") for node in graph.nodes]
    tensors = [value.dtype for value in values if value is not None]
    assert tensors[0] == tensors[-1] == torch.float16  # what comes in, and what goes out
    assert set(tensors[1:-1]) == {torch.float32}


def test_transform_input_gives_pixels_from_minus_1_to_1() -> None:
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    pixels = torch.rand(2, 3, 4, 4)
    transformed = TransformInput()((pixels - mean) / std)
    torch.testing.assert_close(transformed, (pixels - 0.5) / 0.5)


def test_transform_input_has_no_keys() -> None:
    assert TransformInput().state_dict() == {}
