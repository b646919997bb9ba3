"""What the paper very likely ran: numbers of that code, its quirks, and which losses reach which networks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.envs import FakeImageEnv
from torch import nn

from sb3_lql.baselines.compared import ComparedDACER, ComparedDIPO, ComparedQSM, ComparedQVPO, ComparedSAC, qsm
from sb3_lql.diffusion.process import linear_schedule
from sb3_lql.networks.layers import EnsembleLinear
from tests.baselines.checks import (
    TINY,
    assert_replays,
    assert_resumes,
    assert_saved,
    networks_reached,
    parameters_on_humanoid,
    random_batch,
)

#: Constructor arguments of each that make it fast.
SMALL: dict[Any, dict[str, Any]] = {
    ComparedDACER: dict(n_denoising_steps=4),
    ComparedDIPO: dict(n_denoising_steps=4, n_action_gradient_steps=3),
    ComparedQSM: dict(n_denoising_steps=4, n_action_samples=3),
    ComparedQVPO: dict(n_denoising_steps=4, n_action_samples=3),
}
ALGORITHMS = list(SMALL)


def tiny(algorithm: Any, **kwargs: Any) -> Any:
    return algorithm("MlpPolicy", "Pendulum-v1", **TINY | SMALL[algorithm] | kwargs)


# All of them


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [(ComparedQSM, 702_227), (ComparedDIPO, 710_419), (ComparedDACER, 707_909), (ComparedQVPO, 707_395)],
)
def test_number_of_parameters_is_that_of_the_networks(algorithm: Any, size: int) -> None:
    assert sum(parameters_on_humanoid(algorithm).values()) == size


@pytest.mark.parametrize(
    ("algorithm", "rate"), [(ComparedQSM, 1.65e-4), (ComparedDACER, 1.65e-4), (ComparedQVPO, 1.75e-4)]
)
def test_the_actors_learning_rate_falls(algorithm: Any, rate: float) -> None:
    model = tiny(algorithm)
    model._n_updates = 50_000 * model.policy_delay
    assert model._learning_rates()["actor"] == pytest.approx(rate)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_losses_beside_the_critics_reach_the_denoiser_only(algorithm: Any) -> None:
    model = tiny(algorithm).learn(30)
    model._n_updates = 1
    batch = model._sample(8)
    actions = model._next_actions(batch)
    losses = [*model._before_td_step(batch), *model._after_td_step(batch, th.zeros(2, 8, 1), actions)]
    assert [networks_reached(model, loss.value) for loss in losses] == [{"denoiser"}]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_it_learned_is_saved_and_continues(algorithm: Any, tmp_path: Path) -> None:
    model = tiny(algorithm).learn(30)
    assert_saved(model, tmp_path)
    assert_resumes(model, tmp_path / "checkpoint")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_replayed_update_is_the_plain_one(algorithm: Any, recordings: list[Any]) -> None:
    assert_replays(algorithm, recordings, **SMALL[algorithm])


# SAC


def test_the_log_density_of_sac_has_no_correction() -> None:
    """u = 1, mean 0, deviation 1: -1.41894, and -0.551377 with it."""
    found = []
    for model in (ComparedSAC("MlpPolicy", "Pendulum-v1", device="cpu"), SAC("MlpPolicy", "Pendulum-v1", device="cpu")):
        distribution: Any = model.actor.action_dist
        distribution.proba_distribution(th.zeros(1, 1), th.zeros(1, 1))
        found.append(distribution.log_prob(th.ones(1, 1).tanh(), th.ones(1, 1)).item())
    assert found == pytest.approx([-1.41894, -0.551377], abs=1e-4)


def test_the_temperature_of_sac_descends_from_e() -> None:
    """1,000 steps at a log-density of -1.41894 d: its logarithm goes from 1 to 0.7. It rests at d."""
    model: Any = ComparedSAC("MlpPolicy", "Pendulum-v1", learning_starts=0, batch_size=4, device="cpu").learn(2)
    model.ent_coef_optimizer.state.clear()
    nn.init.ones_(model.log_ent_coef)
    assert model.target_entropy == -1
    for _ in range(1_000):
        model.ent_coef_optimizer.zero_grad()
        (-(model.log_ent_coef * (-1.41894 + model.target_entropy))).mean().backward()
        model.ent_coef_optimizer.step()
    assert model.log_ent_coef.item() == pytest.approx(0.7, abs=1e-3)
    distribution: Any = model.actor.action_dist
    distribution.proba_distribution(th.zeros(100_000, 1), th.full((100_000, 1), 0.0890161).log())
    actions = distribution.sample()
    assert distribution.log_prob(actions, distribution.gaussian_actions).mean().item() == pytest.approx(1.0, abs=0.02)


def test_sac_has_the_networks_and_the_scale_of_rewards() -> None:
    model: Any = ComparedSAC("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=8, device="cpu").learn(30)
    assert model.log_ent_coef.item() == pytest.approx(1.0, abs=0.01)
    assert [type(layer) for layer in model.actor.latent_pi] == [nn.Linear, nn.GELU] * 3
    weight = (
        model.policy_class(model.observation_space, model.action_space, model.lr_schedule).actor.latent_pi[2].weight
    )
    assert weight.abs().max() <= 2 / 16
    buffer, sampled = model.replay_buffer, []
    plain = buffer.sample

    def sample(*args: Any, **kwargs: Any) -> Any:
        sampled.append(plain(*args, **kwargs))
        return sampled[-1]._replace(rewards=th.full_like(sampled[-1].rewards, 5.0), dones=th.ones(8, 1))

    buffer.sample = sample
    # The target of terminal transitions is their reward: 0.2 * 5
    for optimizer in (model.critic.optimizer, model.actor.optimizer):
        optimizer.param_groups[0]["lr"] = 0.01
    model.lr_schedule = lambda progress: 0.01
    model.train(300, 8)
    batch = sampled[-1]
    q_values = th.cat(model.critic(batch.observations, batch.actions), dim=1)
    assert q_values.mean().item() == pytest.approx(1.0, abs=0.2)
    assert model.replay_buffer is buffer


def test_sac_saves_loads_and_sees_images(tmp_path: Path) -> None:
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=False)
    model = ComparedSAC("CnnPolicy", env, learning_starts=4, buffer_size=20, batch_size=4, device="cpu", seed=1)
    model.learn(6).save(tmp_path / "sac")
    loaded = ComparedSAC.load(tmp_path / "sac", device="cpu")
    obs = env.observation_space.sample()
    assert loaded.reward_scale == 0.2
    assert (loaded.predict(obs, deterministic=True)[0] == model.predict(obs, deterministic=True)[0]).all()


def test_sac_refuses_a_scale_of_zero() -> None:
    with pytest.raises(ValueError, match="reward_scale=0"):
        ComparedSAC("MlpPolicy", "Pendulum-v1", reward_scale=0)


# QSM


@pytest.mark.parametrize(("z", "expected"), [(0.0, 0.00122006), (0.5, -0.0410438)])
def test_the_chain_of_qsm(z: float, expected: float) -> None:
    """Score -x, from 0.8, with z = 0, and z = 0.5 (-1)^k."""
    noise = th.tensor([z * (-1) ** k for k in range(20)]).view(20, 1, 1)
    end = qsm.ScoreChain(20)(lambda x, k: -x, th.tensor([[0.8]]), noise)
    assert end.item() == pytest.approx(expected, rel=1e-4)


def test_qsm_learns_the_smaller_critics_gradient() -> None:
    """Q1 = a1 + 2 a2, Q2 = 3 a1 - a2, at (0.5, 0.25) and (-0.5, 0.25), from a score of zero: 3.75."""
    model = tiny(ComparedQSM)
    slopes = th.tensor([[1.0, 2.0], [3.0, -1.0]])
    layer = EnsembleLinear(2, 5, 1)
    with th.no_grad():
        layer.weight.copy_(th.cat([th.zeros(2, 3, 1), slopes[..., None]], dim=1))
    model.critic.layers, model.critic.activations, model.critic.input_parts = (
        nn.ModuleList([layer]),
        nn.ModuleList(),
        [3, 2, 0],
    )
    model.policy.denoiser.given = lambda features: lambda x, t: th.zeros_like(x).requires_grad_()
    model._n_updates = 1
    actions = th.tensor([[0.5, 0.25], [-0.5, 0.25]])
    batch = random_batch(model, 2)._replace(actions=actions)
    (loss,) = model._after_td_step(batch, th.zeros(2, 2, 1), actions)
    assert loss.value.item() == pytest.approx(3.75)


def test_qsm_scatters_actions_by_the_last_noise() -> None:
    model = tiny(ComparedQSM, n_denoising_steps=20, n_action_samples=1)
    model.policy.denoiser.given = lambda features: lambda x, t: -2.0 / (1 - t / 20) * x  # each step begins anew at 0
    actions = model.policy.run(th.zeros(20_000, 3), *model.policy.draw(th.zeros(20_000, 3)))
    assert actions.std().item() == pytest.approx(0.223607, rel=0.02)


# DIPO


def test_dipos_loss_has_a_factor_of_one_half() -> None:
    """Predicted (0.5, -1), e = (0, 1): 1.0625."""
    model = tiny(ComparedDIPO)
    model.policy.denoiser.given = lambda features: lambda x, t: th.tensor([[0.5, -1.0]])
    zeros, noise = th.zeros(1, 2), th.tensor([[0.0, 1.0]])
    loss = model._weighted_denoising_loss(th.zeros(1, 3), zeros, th.zeros(1, dtype=th.long), noise, th.ones(1))
    assert loss.item() == pytest.approx(1.0625)


def test_dipo_has_the_settings_of_the_code() -> None:
    model: Any = ComparedDIPO("MlpPolicy", "Pendulum-v1", device="cpu")
    assert (model.n_denoising_steps, model.n_action_gradient_steps, model.actor_target_interval) == (100, 30, 2)
    assert model._largest_action_gradient() == 0.16
    assert model.replay_buffer.handle_timeout_termination
    assert model.policy.process.signal[99].square().item() == pytest.approx(5.2142e-8, rel=1e-4)
    angles = [7 * 10_000 ** (-j / 16) for j in range(16)]
    codes = [math.sin(angle) / math.sqrt(32) for angle in angles] + [
        math.cos(angle) / math.sqrt(32) for angle in angles
    ]
    assert model.policy.denoiser.codes[7].tolist() == pytest.approx(codes, abs=1e-6)


# QVPO


def test_qvpos_weights_are_q_above_one() -> None:
    """q = (0.5, 1, 1.5, -2): 0, 0, 1.5, 0."""
    model = tiny(ComparedQVPO)
    q_values = th.tensor([0.5, 1.0, 1.5, -2.0]).repeat_interleave(3)

    def q_of(features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        return (q_values if len(actions) == 12 else q_values[::3])[None, :, None] + 0 * actions

    model.critic.q_values = q_of
    assert model._best(th.randn(4, 3))[1].tolist() == [0.0, 0.0, 1.5, 0.0]


def test_qvpo_takes_the_best_of_its_chains_with_gradients_through_them() -> None:
    model = tiny(ComparedQVPO)
    model.critic.q_values = lambda features, actions: 2.0 + actions.expand(2, -1, -1)  # the largest action is the best
    features = th.randn(5, 3)
    th.manual_seed(3)
    actions, weights = model._best(features)
    th.manual_seed(3)
    rows = features.repeat_interleave(3, dim=0)
    drawn = model.policy.sample(model.policy.denoiser, rows)
    assert th.allclose(actions.detach(), drawn.view(5, 3, 1).amax(dim=1), atol=1e-6)
    weights.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.policy.denoiser.parameters())


def test_qvpos_weight_of_random_actions() -> None:
    """In updates 0, 1, 2, 100,001 and 190,000: 1.609438, 0.02, 0.0199999, 0.01, 0.002."""
    model = tiny(ComparedQVPO)
    found = [model.policy.uniform_weight.item()]
    for finished in (1, 2, 100_001, 190_000):
        model._n_updates = finished
        model._between_updates()
        found.append(model.policy.uniform_weight.item())
    assert found == pytest.approx([1.609438, 0.02, 0.0199999, 0.01, 0.002], rel=1e-5)


def test_qvpos_loss_is_the_one_written_out() -> None:
    model = tiny(ComparedQVPO)
    model._n_updates = 1
    batch, policy = random_batch(model), model.policy
    model.critic.q_values = lambda features, actions: 2.0 + actions.expand(2, -1, -1)
    th.manual_seed(4)
    (loss,) = model._after_td_step(batch, th.zeros(2, 8, 1), batch.actions)
    th.manual_seed(4)
    obs = batch.observations
    best = policy.sample(policy.denoiser, obs.repeat_interleave(3, dim=0)).view(8, 3, 1).amax(dim=1)
    w = 2.0 + best[:, 0]
    numbers = obs.repeat(10, 1).flatten()[th.randperm(240)].view(80, 3)
    w = th.cat([w, 1.609438 * w.repeat(10)[th.randperm(80)]])
    actions = th.cat([best, 2 * th.rand(80, 1) - 1])
    t, e = th.randint(4, (88,)), th.randn(88, 1)
    alpha_bar = linear_schedule(4, 0.3)[t, None].float()
    predicted = policy.denoiser(th.cat([obs, numbers]), alpha_bar.sqrt() * actions + (1 - alpha_bar).sqrt() * e, t)
    expected = (w[:, None] * (predicted - e).square()).mean()
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_qvpos_critics_take_the_first_step_twice() -> None:
    """Adam's first step is the learning rate: a parameter with a gradient moves by twice that."""
    model = tiny(ComparedQVPO, learning_starts=1_000).learn(30)
    before = model.critic.layers[-1].bias.clone()
    model.train(1, 8)
    moved = (model.critic.layers[-1].bias - before).abs()
    assert moved.flatten().tolist() == pytest.approx([6e-4] * 2, rel=1e-2)


def test_qvpo_acts_with_the_average_and_targets_with_the_denoiser() -> None:
    model = tiny(ComparedQVPO)
    assert model.policy.acting_denoiser is model.policy.denoiser_target
    model.policy.best_actions = lambda denoiser, features: denoiser
    model._explore = lambda actions: actions
    assert model._next_actions(random_batch(model)) is model.policy.denoiser


# DACER


def test_dacer_has_the_settings_of_the_code() -> None:
    model: Any = ComparedDACER("MlpPolicy", "Pendulum-v1", device="cpu")
    assert model.policy.process.signal[9].square().item() == pytest.approx(0.47311, abs=1e-5)
    assert (model.noise_scale, model.policy.start_scale) == (0.15, 0.5)
    assert model._exploration_scale().item() == pytest.approx(0.45)
