"""Flows along mean velocities: numbers worked out by hand, and a closed form."""

from typing import Any

import pytest
import torch as th

from sb3_lql.diffusion.flow import MeanFlow, mean_flow_losses

#: Of the actions in the closed form.
MEAN, STD = th.tensor([0.1, -0.05]), th.tensor([0.08, 0.12])


def linear(x: th.Tensor, times: Any) -> Any:
    """u = 0.5 a + 0.2 t - 0.3 r."""
    return 0.5 * x + 0.2 * times[0] - 0.3 * times[1]


def std_at(t: Any) -> Any:
    return ((1 - t) ** 2 + t**2 * STD**2) ** 0.5


def mean_velocity(x: th.Tensor, times: Any) -> Any:
    """Of the flow from N(0, I) to N(MEAN, STD^2), which keeps each point's quantile."""
    t, r = times
    return (r * MEAN + std_at(r) * (x - t * MEAN) / std_at(t) - x) / (r - t)


def test_losses_are_those_worked_out_by_hand() -> None:
    """e = -1, a = 1, t = 0.25, r = 0.75: du/dt = 1.2; 9.150625 and 5.175625."""
    column = th.ones(1, 1)
    losses = mean_flow_losses(linear, column, -column, 0.25 * column, 0.75 * column)
    assert [loss.item() for loss in losses] == pytest.approx([9.150625, 5.175625], rel=1e-6)


def test_losses_are_squared_norms_averaged_over_rows() -> None:
    ones = th.ones(5, 3)
    losses = mean_flow_losses(linear, ones, -ones, 0.25 * ones[:, :1], 0.75 * ones[:, :1])
    assert [loss.item() for loss in losses] == pytest.approx([3 * 9.150625, 3 * 5.175625], rel=1e-6)


def test_targets_have_no_gradient() -> None:
    """With u = w a at t = 0.25: d/dw of (u - c)^2 is 2 (u - c) a, for c as it is at w."""
    w, column = th.tensor(0.5, requires_grad=True), th.ones(1, 1)
    of_mean, _ = mean_flow_losses(lambda x, times: w * x, column, -column, 0.25 * column, 0.75 * column)
    of_mean.backward()  # type: ignore[no-untyped-call]
    # a = -0.5, v = 2, du/dt = w v = 1, c = 2.5
    assert w.grad is not None
    assert w.grad.item() == pytest.approx(2 * (-0.25 - 2.5) * -0.5)


def test_one_step_ends_where_it_does_by_hand_and_is_clipped() -> None:
    """-0.4 + (-0.2 - 0.3) = -0.9; from -1 it would be -1.8."""
    assert MeanFlow(1)(linear, th.tensor([[-0.4]])).item() == pytest.approx(-0.9)
    assert MeanFlow(1)(linear, -th.ones(1, 1)).item() == -1.0


def test_only_the_last_step_is_clipped() -> None:
    """-1 + 0.5 (-0.5 - 0.15) = -1.325, and 0.5 (-0.6625 + 0.1 - 0.3) more are -1.75625."""
    first = MeanFlow(2).step(linear, -th.ones(1, 1), 0)
    assert first.item() == pytest.approx(-1.325)
    assert MeanFlow(2).step(linear, first, 1).item() == -1.0
    # Where the second velocity is 2, the flow is back in the box
    ends = MeanFlow(2)(lambda x, times: linear(x, times) if times[0] == 0 else th.full_like(x, 2.0), -th.ones(1, 1))
    assert ends.item() == pytest.approx(-0.325)


@pytest.mark.parametrize("n_steps", [1, 4])
def test_a_velocity_that_knows_its_gaussian_gives_it_back(n_steps: int) -> None:
    th.manual_seed(0)
    n = 20_000
    actions = MeanFlow(n_steps)(mean_velocity, th.randn(n, 2))
    th.testing.assert_close(actions.mean(dim=0), MEAN, atol=5 * 0.12 / n**0.5, rtol=0)
    th.testing.assert_close(actions.std(dim=0), STD, atol=0, rtol=5 / (2 * n) ** 0.5)
    assert abs(th.corrcoef(actions.T)[0, 1].item()) < 5 / n**0.5


def test_that_velocity_is_where_the_loss_has_no_gradient() -> None:
    """For u + b + c x, at b = c = 0, within what is left to chance."""
    th.manual_seed(0)
    n, parameters = 400_000, th.zeros(2, 2, requires_grad=True)
    times = 0.02 + 0.9 * th.rand(2, n, 1)
    losses = mean_flow_losses(
        lambda x, times: mean_velocity(x, times) + parameters[0] + parameters[1] * x,
        MEAN + STD * th.randn(n, 2),
        th.randn(n, 2),
        times.amin(dim=0),
        times.amax(dim=0) + 0.02,
    )
    losses[0].backward()  # type: ignore[no-untyped-call]
    assert parameters.grad is not None
    # The residual is below 3 or so: 2 * 3 / sqrt(n), times five
    assert parameters.grad.abs().max() < 30 / n**0.5
