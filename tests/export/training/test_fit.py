import pytest
import torch

from export.architectures.lenet import lenet5
from export.architectures.unfamiliar import ScoresUnfamiliar
from export.samples.digits import Integers, random_fifth
from export.training.data import NONE, TrainingSet, scikit_learn, unpack
from export.training.fit import fit, share_of_rate, temper
from export.training.recipes import TrainingRecipe

BRIEF = TrainingRecipe(epochs=2, rate=0.02, batch=32, channels_last=False)


@pytest.fixture(scope="module")
def some_digits() -> TrainingSet:
    rows: Integers = random_fifth().train[:96]
    known = scikit_learn(rows)
    return known._replace(nondigits=255 - known.fields[:20])


def test_same_seed_gives_the_same_weights(some_digits: TrainingSet) -> None:
    torch.rand(3)  # what happened before in the process does not matter
    first, second = (fit(lenet5, BRIEF, some_digits, 0).network.state_dict() for _ in range(2))
    other = fit(lenet5, BRIEF, some_digits, 1).network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["f6.weight"], other["f6.weight"])


def test_curve_has_a_point_per_epoch(some_digits: TrainingSet) -> None:
    seen: list[int] = []
    curve = fit(lenet5, BRIEF, some_digits, 0, lambda epoch: seen.append(epoch.epoch)).curve
    assert [point.epoch for point in curve] == seen == [1, 2]
    assert curve[-1].rate == 0
    assert curve[0].loss > 0


def test_what_is_no_digit_is_trained_towards_the_fixed_score(some_digits: TrainingSet) -> None:
    class Constant(ScoresUnfamiliar, torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(10))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(image), 10)

    recipe = TrainingRecipe(epochs=60, rate=0.5, weight_decay=0, channels_last=False, nondigits=1)

    def score(data: TrainingSet) -> float:
        network = fit(Constant, recipe, data, 0).network
        with torch.inference_mode():
            return float(network.unfamiliar(network(torch.zeros(1, 1, 32, 32))))  # type: ignore[operator]

    assert score(some_digits) == pytest.approx(0.5, abs=0.03)  # as many digits as others
    assert score(some_digits._replace(nondigits=torch.empty(0, 2, 64, 64))) < 0.1


def test_unfamiliar_is_the_share_of_the_fixed_score() -> None:
    network = ScoresUnfamiliar()
    logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [-9.0, -9.0, -9.0]])
    expected = 1 / (1 + logits.exp().sum(1, keepdim=True))
    assert torch.allclose(network.unfamiliar(logits), expected)
    network.rejection = -3.0
    assert torch.allclose(
        network.unfamiliar(logits), expected * 0 + 1 / (1 + logits.exp().sum(1, True) * 20.0855)
    )


def test_fields_are_packed_to_a_255th_and_a_16th(some_digits: TrainingSet) -> None:
    from export.samples.digits import fields

    exact, labels = fields(random_fifth().train[:96])
    assert torch.equal(labels, some_digits.labels)
    error = (unpack(some_digits.fields) - exact).abs().amax(dim=(0, 2, 3))
    assert error[0] <= 0.5 / 255 + 1e-6
    assert (unpack(some_digits.fields) - exact)[:, 1][
        exact[:, 1] < 15
    ].abs().max() <= 0.5 / 16 + 1e-6
    assert NONE == 10


def test_temperature_is_divided_out_of_the_last_layer() -> None:
    counts = torch.tensor([28, 20, 14, 10, 8, 6, 5, 4, 3, 2])  # of each class, 100 in all
    labels = torch.arange(10).repeat_interleave(counts)
    linear = torch.nn.Linear(4, 10)
    network = torch.nn.Sequential(torch.nn.Flatten(), linear)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = 3 * torch.log(counts / 100)  # right but for a temperature of 3
    logits = linear.bias.detach().clone().expand(100, 10)
    assert temper(network, logits, labels) == pytest.approx(3, abs=0.005)
    assert torch.allclose(linear.bias.softmax(0), counts / 100, atol=1e-3)


def test_temperature_of_lenet_is_divided_out_of_its_scale() -> None:
    network = lenet5().eval()
    with torch.no_grad():
        logits = network(torch.zeros(4, 1, 32, 32))
        before = float(network.scale)
        temperature = temper(network, logits.clone(), torch.zeros(4, dtype=torch.long))
        assert float(network.scale) == pytest.approx(before / temperature)
        assert torch.allclose(network(torch.zeros(4, 1, 32, 32)), logits / temperature, rtol=1e-4)


def test_rate_rises_for_two_epochs_and_falls_to_nothing() -> None:
    shares = [share_of_rate(step / 10, epochs=10) for step in range(101)]
    assert (shares[0], shares[10]) == (0, 0.5)
    assert max(shares) == shares[20] == 1
    assert shares == sorted(shares[:21]) + sorted(shares[21:], reverse=True)
    assert shares[60] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0)
    assert share_of_rate(1, epochs=4) == 1  # of a short training, a quarter rises
