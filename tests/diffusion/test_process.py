"""The chain and its schedules: numbers of the authors' codes, and a closed form."""

import pytest
import torch as th

from sb3_lql.diffusion.process import (
    AncestralProcess,
    DiffusionProcess,
    cosine_schedule,
    linear_schedule,
    variance_preserving_schedule,
)
from sb3_lql.networks.layers import sinusoidal_levels

SCHEDULES = {
    "0.8": linear_schedule(20, 0.8),
    "0.3": linear_schedule(20, 0.3),
    "cosine": cosine_schedule(20),
    "vp": variance_preserving_schedule(20),
}
#: alpha_bar at some times, in the order of the schedules.
ALPHA_BAR = {
    0: (0.99992, 0.99997, 0.99201, 0.98278),
    1: (0.95778, 0.98417, 0.97209, 0.94224),
    5: (0.50331, 0.78355, 0.78691, 0.62157),
    10: (0.063399, 0.39848, 0.41631, 0.21174),
    15: (1.1596e-3, 0.12624, 0.094046, 0.038852),
    19: (5.2684e-6, 0.034637, 6.0596e-6, 6.4093e-3),
}


@pytest.mark.parametrize("t", ALPHA_BAR)
def test_schedules_are_the_authors(t: int) -> None:
    assert [float(schedule[t]) for schedule in SCHEDULES.values()] == pytest.approx(ALPHA_BAR[t], rel=5e-5)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("0.8", 8.9362e-3, 0.89397),
        ("0.3", 5.4721e-3, 0.54323),
        ("cosine", 0.075826, 0.99647),
        ("vp", 0.11091, 0.61996),
    ],
)
def test_noise_of_the_steps_is_the_authors(name: str, first: float, last: float) -> None:
    sigma = DiffusionProcess(SCHEDULES[name]).sigma.tolist()
    assert sigma[0] == 0.0
    assert [sigma[1], sigma[19]] == pytest.approx([first, last], rel=1e-4)


def test_long_and_short_schedules_are_the_authors() -> None:
    assert float(linear_schedule(100, 0.3)[99]) == pytest.approx(5.2142e-8, rel=1e-4)
    assert float(cosine_schedule(100)[99]) == pytest.approx(2.42857e-7, rel=1e-4)
    assert variance_preserving_schedule(5).tolist() == pytest.approx(
        [0.804125, 0.435178, 0.1585, 0.038852, 0.00640933], rel=1e-5
    )
    tenth = [
        float(schedule[9]) for schedule in (linear_schedule(10, 0.8), linear_schedule(10, 0.3), cosine_schedule(10))
    ]
    assert tenth == pytest.approx([0.00202499, 0.184962, 2.40917e-5], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "without", "with_noise"),
    [
        ("0.8", -0.340438, -0.272603),
        ("0.3", -0.0766337, -0.148937),
        ("cosine", -0.378921, -0.378976),
        ("vp", -0.17778, -0.269613),
    ],
)
def test_a_chain_ends_where_the_authors_ends(name: str, without: float, with_noise: float) -> None:
    process = DiffusionProcess(SCHEDULES[name])
    start = th.tensor([[0.4]])
    # z_t = 0.5 (-1)^t, for t = 19 ... 1
    noise = th.tensor([0.5 * (-1.0) ** t for t in range(19, 0, -1)])[:, None, None]

    def predict_noise(x: th.Tensor, t: int) -> th.Tensor:
        return 0.5 * x + 0.01 * t

    found = [process(predict_noise, start, draws).item() for draws in (None, noise)]
    assert found == pytest.approx([without, with_noise], abs=2e-6)


def test_removing_noise_is_clipped_as_the_authors() -> None:
    """x = 0.3, e = -0.2 with c = 0.8: 0.526612 at t = 4; 1 at t = 19."""
    process = DiffusionProcess(SCHEDULES["0.8"])
    x, noise = th.full((2, 1), 0.3), th.full((2, 1), -0.2)
    assert process.remove_noise(x, th.tensor([4, 19]), noise).flatten().tolist() == pytest.approx([0.526612, 1.0])


def test_codes_of_times_are_the_authors() -> None:
    code = sinusoidal_levels(20, 16)[7, [0, 1, 7, 8, 15]]
    assert code.tolist() == pytest.approx([0.164247, 0.200105, 0.000553398, 0.188476, 0.249999], rel=1e-5)


@pytest.mark.parametrize("process_class", [DiffusionProcess, AncestralProcess])
def test_a_denoiser_that_knows_its_gaussian_gives_it_back(process_class: type[DiffusionProcess]) -> None:
    """
    Of N(m, s^2), the noise to expect in x is sqrt(1 - a) (x - sqrt(a) m) / (a s^2 + 1 - a), with a for alpha_bar.

    In 2,000 steps, the noise that the last one leaves out is a hundredth of these widths; the box is far away.
    """
    n, mean, std = 20_000, th.tensor([0.1, -0.05]), th.tensor([0.08, 0.12])
    schedule = variance_preserving_schedule(2_000)
    process, alpha_bar = process_class(schedule), schedule.float()

    def predict_noise(x: th.Tensor, t: int) -> th.Tensor:
        variance = alpha_bar[t] * std.square() + 1.0 - alpha_bar[t]
        return (1.0 - alpha_bar[t]).sqrt() * (x - alpha_bar[t].sqrt() * mean) / variance

    th.manual_seed(0)
    actions = process(predict_noise, th.randn(n, 2), th.randn(1_999, n, 2))
    th.testing.assert_close(actions.mean(dim=0), mean, atol=5 * 0.12 / n**0.5, rtol=0)
    th.testing.assert_close(actions.std(dim=0), std, atol=0, rtol=5 / (2 * n) ** 0.5 + 0.01)
    assert abs(th.corrcoef(actions.T)[0, 1].item()) < 5 / n**0.5
