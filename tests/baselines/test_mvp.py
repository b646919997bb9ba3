"""MVP: the loss written out, which action is cloned, and which losses reach which networks."""

from typing import Any

import pytest
import torch as th
from torch.nn import functional as F

from sb3_lql.baselines import MVP
from tests.baselines.checks import (
    TINY,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)


@pytest.fixture
def model() -> Any:
    return MVP("MlpPolicy", "Pendulum-v1", n_action_samples=4, **TINY)


def test_number_of_parameters_is_that_of_three_layers_of_256() -> None:
    """On Humanoid-v4, with t and r as they are: 395 inputs."""
    sizes = parameters_on_humanoid(MVP)
    assert sizes == {"critic": 465_410, "denoiser": 396 * 256 + 2 * 257 * 256 + 257 * 17}


def test_the_loss_is_the_one_written_out(model: Any) -> None:
    """With the derivative along (v, 1, 0) from finite differences."""
    model._n_updates, model.velocity_weight = 1, 0.5
    batch = random_batch(model)
    obs = batch.observations
    th.manual_seed(2)
    (loss,) = model._after_td_step(batch, th.zeros(2, 8, 1), batch.actions)

    network = model.policy.denoiser.network

    def velocity(x: th.Tensor, t: th.Tensor, r: th.Tensor) -> th.Tensor:
        layers = [(layer.weight.double(), layer.bias.double()) for layer in (network[0], network[2])]
        hidden = F.gelu(F.linear(th.cat([obs, x, t, r], dim=1).double(), *layers[0]))
        return F.linear(hidden, *layers[1])

    th.manual_seed(2)
    rows, start = obs.repeat_interleave(4, dim=0), th.randn(32, 1)
    th.randn(0, 32, 1)
    zeros, ones = th.zeros(32, 1), th.ones(32, 1)
    with th.no_grad():
        drawn = (start + network(th.cat([rows, start, zeros, ones], dim=1))).clamp(-1, 1)
        q_values = model.critic(rows, drawn).amin(dim=0).view(8, 4)
    actions = drawn.view(8, 4).gather(1, q_values.argmax(dim=1, keepdim=True))
    times = th.rand(2, 8, 1).sort(dim=0).values.double()
    e = th.randn(8, 1)
    t, r = times
    x, v = (1 - t) * e + t * actions, actions - e
    step = 1e-5
    derivative = (velocity(x + step * v, t + step, r) - velocity(x - step * v, t - step, r)) / (2 * step)
    of_mean = (velocity(x, t, r) - v - (r - t) * derivative).square().mean()
    of_instant = (velocity(x, t, t) - v).square().mean()
    assert loss.value.item() == pytest.approx((of_mean + 0.5 * of_instant).item(), rel=1e-4)


def test_an_action_is_the_best_of_several_single_steps(model: Any) -> None:
    model.policy.denoiser.given = lambda features: lambda x, times: 0.5 * x + 0.2 * times[0] - 0.3 * times[1]
    model.critic.q_values = lambda features, actions: -(actions - 0.2).square().expand(2, -1, -1)
    starts = th.tensor([-1.0, 0.4, 0.2, 3.0])[:, None]
    model.policy.draw = lambda features: (starts, th.zeros(0, 4, 1))
    # 1.5 x - 0.3: -1.8, 0.3, 0, 4.2
    assert model.policy.best_actions(model.policy.denoiser, th.zeros(1, 3)).item() == pytest.approx(0.3)
    drawn = model.policy.sample(model.policy.denoiser, th.zeros(4, 3)).flatten().tolist()
    assert drawn == pytest.approx([-1.0, 0.3, 0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize(("delay", "expected"), [(1, [True] * 4), (2, [True, False] * 2)])
def test_the_network_learns_at_every_update_unless_it_is_delayed(delay: int, expected: list[bool]) -> None:
    model = MVP("MlpPolicy", "Pendulum-v1", policy_delay=delay, **TINY | dict(learning_starts=1_000)).learn(30)
    assert what_changes(model, ["denoiser.network.0.weight", "critic.layers.0.weight"], 4) == [
        [due, True] for due in expected
    ]


def test_learning_rates_stay(model: Any) -> None:
    for updates in (1, 50_000, 1_000_000):
        model._n_updates = updates
        assert model._learning_rates() == {"critic": 1e-4, "actor": 1e-4}


def test_actions_gather_at_the_best_one() -> None:
    """Of Q = -(a - 0.5)^2, given as it is: in 600 updates, a single action's distance falls to a fifth at most."""
    model: Any = MVP("MlpPolicy", "Pendulum-v1", **TINY | dict(batch_size=64, learning_starts=10_000)).learn(100)
    model.critic.q_values = lambda features, actions: -(actions - 0.5).square().expand(2, -1, -1)
    optimizer = model.policy.optimizers["actor"]
    optimizer.param_groups[0]["lr"] = 3e-3
    model._n_updates = 1

    def distance() -> float:
        actions = model.policy.sample(model.policy.denoiser, model._sample(500).observations)
        return float((actions - 0.5).abs().mean())

    before = distance()
    for _ in range(600):
        (loss,) = model._after_td_step(model._sample(64), th.zeros(2, 64, 1), th.zeros(64, 1))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    assert distance() < before / 5


@pytest.mark.parametrize("argument", ["velocity_weight", "n_denoising_steps"])
def test_bad_values_are_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=-1"):
        MVP("MlpPolicy", "Pendulum-v1", **TINY | {argument: -1})
