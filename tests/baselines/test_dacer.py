"""DACER: numbers of the authors' code, the losses written out, and which losses reach which networks."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from torch.nn import functional as F

from sb3_lql.baselines import DACER
from sb3_lql.baselines.dacer import return_loss
from tests.baselines.checks import (
    TINY,
    networks_reached,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)


@pytest.fixture
def model() -> Any:
    return DACER("MlpPolicy", "Pendulum-v1", **TINY)


@pytest.mark.parametrize(
    ("before", "typical", "loss", "of_mean", "of_std"),
    [
        (-1.0, 1.0, -11.4156, (-1.57143, 0.234043), (-21.3889, 0.25482)),
        (0.8, 0.801, -5.03828, (-1.05943, 0.157787), (-9.10424, 0.171795)),
    ],
    ids=["first", "later"],
)
def test_the_critics_loss_is_the_authors(
    model: Any, before: float, typical: float, loss: float, of_mean: tuple[float, ...], of_std: tuple[float, ...]
) -> None:
    """q = (1, 2), sigma = (0.5, 1.5), y = (2, 1), y_z = (10, 1.2), for each of two critics."""
    mean = th.tensor([1.0, 2.0]).view(1, 2, 1).repeat(2, 1, 1).requires_grad_()
    std = th.tensor([0.5, 1.5]).view(1, 2, 1).repeat(2, 1, 1).requires_grad_()
    target = th.tensor([[2.0, 10.0], [1.0, 1.2]])
    model.critic.typical_std.fill_(before)
    found = model._td_loss(None, th.cat([mean, std], dim=2), target)
    found.backward()
    assert model.critic.typical_std.flatten().tolist() == pytest.approx([typical] * 2)
    assert found.item() == pytest.approx(2 * loss, rel=1e-5)
    assert mean.grad is not None
    assert std.grad is not None
    assert mean.grad.flatten().tolist() == pytest.approx([*of_mean, *of_mean], rel=1e-5)
    assert std.grad.flatten().tolist() == pytest.approx([*of_std, *of_std], rel=1e-5)


def test_the_loss_of_each_critic_has_its_own_scale() -> None:
    mean, std = th.zeros(2, 4, 1), th.ones(2, 4, 1)
    y, y_z = th.zeros(4, 1), 10 * th.ones(4, 1)
    typical = th.tensor([0.5, 2.0])
    expected = -((typical.square() + 0.1) * (9 * typical.square() - 1) / 1.1).sum()
    assert return_loss(mean, std, y, y_z, typical.view(2, 1, 1)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_targets_are_those_of_the_critic_with_the_smaller_mean(model: Any) -> None:
    """``y`` of its mean, ``y_z`` of its mean plus at most three of its standard deviations."""
    batch = random_batch(model)
    means, stds = th.randn(2, 8, 1), th.rand(2, 8, 1) + 0.1
    model.critic_target.distributions = lambda features, actions: th.cat([means, stds], dim=2)
    th.manual_seed(3)
    found = model._backup(batch, batch.actions)
    th.manual_seed(3)
    z = th.randn(2, 8, 1).clamp(-3, 3)
    for row in range(8):
        critic = 0 if means[0, row] < means[1, row] else 1
        future = 0.99 * (1 - batch.dones[row])
        y = 0.2 * batch.rewards[row] + future * means[critic, row]
        y_z = y + future * z[critic, row] * stds[critic, row]
        assert found[row].tolist() == pytest.approx([y.item(), y_z.item()], rel=1e-5, abs=1e-6)


def test_the_denoiser_descends_the_smaller_mean_through_the_whole_chain(model: Any) -> None:
    batch = random_batch(model)
    model._n_updates = 1
    th.manual_seed(4)
    (loss,) = list(model._before_td_step(batch))
    model.policy.zero_grad()
    loss.value.backward()
    gradient = model.policy.denoiser.network[0].weight.grad.clone()

    th.manual_seed(4)
    x, noise = th.randn(8, 1), th.randn(19, 8, 1)
    u = th.arange(1, 21, dtype=th.float64) / 20
    alpha_bar = [1.0, *(-0.1 * u - 4.95 * u.square()).exp().tolist()]
    for t in range(19, -1, -1):
        now, before = alpha_bar[t + 1], alpha_bar[t]
        beta = 1 - now / before
        eps = model.policy.denoiser(batch.observations, x, t)
        clean = ((x - (1 - now) ** 0.5 * eps) / now**0.5).clamp(-1, 1)
        x = (beta * before**0.5 * clean + (1 - before) * (1 - beta) ** 0.5 * x) / (1 - now)
        if t > 0:
            x = x + (beta * (1 - before) / (1 - now)) ** 0.5 * noise[19 - t]
    x = (x + 0.1 * 3.0 * th.randn(8, 1)).clamp(-1, 1)
    expected = -model.critic(batch.observations, x).amin(dim=0).mean()
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    model.policy.zero_grad()
    expected.backward()
    assert gradient.abs().max() > 0
    th.testing.assert_close(gradient, model.policy.denoiser.network[0].weight.grad, rtol=1e-3, atol=1e-6)


def test_the_temperature_falls_as_the_authors_while_the_entropy_is_high(model: Any) -> None:
    """By at most 3% a step: 2.91134 after 1, 1.64643 after 20, 0.149361 after 100."""
    optimizer, found = model.policy.optimizers["temperature"], {}
    optimizer.param_groups[0]["lr"] = model._learning_rates()["temperature"]
    for step in range(1, 101):
        loss = model._temperature_loss(th.tensor(5.0))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        found[step] = model.temperature.item()
    assert [found[1], found[20], found[100]] == pytest.approx([2.91134, 1.64643, 0.149361], rel=1e-5)
    assert 0.15 * found[100] == pytest.approx(0.0224, abs=5e-5)


def test_the_temperature_moves_towards_the_entropy_of_minus_nine_tenths_a_coordinate(model: Any) -> None:
    for entropy, gradient in ((0.0, 0.9), (-0.9, 0.0), (-2.0, -1.1)):
        model.policy.zero_grad()
        model._temperature_loss(th.tensor(entropy)).value.backward()
        assert model.policy.log_temperature.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_the_entropy_is_that_of_chains_with_their_noise(model: Any) -> None:
    """Chains that all end at 0 have that of N(0, (0.02 * 3)^2), which a mixture of 200 points gives within 0.2."""
    model.noise_scale = 0.02
    model.policy.denoise = lambda denoiser, features, *draws: th.zeros(len(features), 1)
    th.manual_seed(0)
    expected = 0.5 * math.log(2 * math.pi * math.e * 0.06**2)
    spread = model._entropy(random_batch(model, n=64)).item() - expected
    # The formula adds the entropy of the component, log 3 at most, and takes away what components overlap
    assert -0.2 < spread < math.log(3)
    assert model.policy.training


def test_number_of_parameters_is_that_of_the_facts() -> None:
    """465,924 of the critics and 241,985 of the denoiser."""
    assert parameters_on_humanoid(DACER) == dict(critic=465_924, denoiser=241_985)


def test_critics_say_means_and_positive_deviations(model: Any) -> None:
    batch = random_batch(model)
    outputs = model._estimate(batch)
    assert outputs.shape == (2, 8, 2)
    assert (outputs[..., 1:] > 0).all()
    assert th.equal(outputs[..., :1], model.critic(batch.observations, batch.actions))
    x = th.cat([batch.observations, batch.actions], dim=1)
    for index in range(2):
        weights = [(layer.weight[index], layer.bias[index]) for layer in model.critic.layers]
        hidden = F.mish(x @ weights[0][0] + weights[0][1])
        raw = hidden @ weights[1][0] + weights[1][1]
        th.testing.assert_close(outputs[index], th.cat([raw[:, :1], F.softplus(raw[:, 1:])], dim=1))


def test_the_temperatures_loss_reaches_nothing_else(model: Any) -> None:
    loss = model._temperature_loss(model._entropy(random_batch(model)))
    assert (loss.optimizer, networks_reached(model, loss.value)) == ("temperature", {"log_temperature"})


def test_what_is_learned_when() -> None:
    """Critics at every update; from the first on, denoiser and targets at every second, alpha at every 10,000th."""
    model: Any = DACER("MlpPolicy", "Pendulum-v1", **TINY | dict(learning_starts=1_000)).learn(30)
    names = ["critic.layers.0.weight", "denoiser.network.0.weight", "critic_target.layers.0.weight", "log_temperature"]
    expected = [[True] * 4, [True, False, False, False], [True, True, True, False], [True, False, False, False]]
    assert what_changes(model, names, 4) == expected
    assert model.temperature.item() == pytest.approx(3.0 * math.exp(-0.03), rel=1e-5)  # H > -0.9 at first
    model._n_updates = 10_000
    assert what_changes(model, names, 1)[0][3]


def test_targets_follow_by_tau_at_every_second_update(model: Any) -> None:
    """From 0 to 1 after 1,000: 0.918428."""
    for parameter, target in zip(model.critic.parameters(), model.critic_target.parameters(), strict=True):
        parameter.data.fill_(1.0)
        target.data.fill_(0.0)
    for update in range(1, 1_001):
        model._n_updates = update
        model._update_targets()
    assert model.critic_target.layers[0].weight.mean().item() == pytest.approx(0.918428, abs=1e-5)


def test_learning_rates_are_constant(model: Any) -> None:
    for updates in (0, 100_000, 10_000_000):
        model._n_updates = updates
        assert model._learning_rates() == dict(critic=1e-4, actor=1e-4, temperature=3e-2)


def test_actions_that_are_stored_have_noise_and_stay_in_the_box(model: Any) -> None:
    """Of standard deviation noise_scale * alpha = 0.3 at first."""
    model.policy.draw = lambda features: (th.zeros(1, 1), th.zeros(19, 1, 1))
    model.policy.denoiser.given = lambda features: lambda x, t: th.zeros_like(x)
    model._last_obs = np.zeros((1, 3), dtype=np.float32)
    scaled = [model._sample_action(0)[1] for _ in range(500)]
    assert np.std(scaled) == pytest.approx(0.3, rel=5 / 1_000**0.5)
    model.noise_scale = 10.0
    assert max(np.abs(model._sample_action(0)[1]).max() for _ in range(50)) == 1.0
    assert not model.predict(np.zeros(3, dtype=np.float32))[0].any()  # without noise
