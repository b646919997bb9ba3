"""SDAC and DPMD: numbers of the authors' code, and which losses reach which networks."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_lql.baselines import DPMD, SDAC
from sb3_lql.diffusion.process import linear_schedule
from tests.baselines.checks import (
    TINY,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)

#: alpha after so many updates, and the lowest that it comes to.
TEMPERATURES = {
    1: 4.96512,
    250: 4.96512,
    251: 4.93049,
    1_000: 4.86198,
    10_000: 3.79925,
    58_000: 1.48145,
    100_000: 1.07471,
    200_000: 0.984068,
}
LOWEST_TEMPERATURE = 0.983779


@pytest.fixture(params=[SDAC, DPMD], ids=["SDAC", "DPMD"])
def algorithm(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("env", ["Pendulum-v1", "Reacher-v5"])
def test_temperature_falls_as_the_authors(algorithm: Any, env: str) -> None:
    """The same for any number of action coordinates, as Adam is scale-free."""
    model = algorithm("MlpPolicy", env, **TINY)
    optimizer = model.policy.optimizers["temperature"]
    optimizer.param_groups[0]["lr"] = model.temperature_learning_rate
    found = []
    for update in range(1, 400_000, model.temperature_interval):
        model._n_updates = update
        (loss,) = model._temperature_step()
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        found.append(model.temperature.item())
    after = {update: found[(update - 1) // model.temperature_interval] for update in TEMPERATURES}
    assert after == pytest.approx(TEMPERATURES, rel=2e-5)
    assert min(found) == pytest.approx(LOWEST_TEMPERATURE, rel=2e-6)
    assert found[-1] == pytest.approx(0.983780, rel=2e-6)


def test_sdac_weights_are_the_authors() -> None:
    """q = (1, 2, 3) at alpha = 5."""
    model: Any = SDAC("MlpPolicy", "Pendulum-v1", n_guesses=3, **TINY)
    q_values = th.tensor([1.0, 2.0, 3.0])
    model.critic.q_values = lambda features, actions: q_values.view(1, 3, 1).expand(2, -1, -1)
    weights = model._weights(th.zeros(1, 3), th.zeros(3, 1, 1))
    assert weights.flatten().tolist() == pytest.approx([0.0900306, 0.244728, 0.665241], rel=1e-5)
    with th.no_grad():
        model.policy.log_temperature.fill_(math.log(0.983780))
    weights = model._weights(th.zeros(1, 3), th.zeros(3, 1, 1))
    assert weights.flatten().tolist() == pytest.approx([3.826e-5, 0.00616626, 0.993795], rel=1e-3)


def test_sdac_loss_is_the_authors() -> None:
    """epsilon = 0.5, e = (-1, 0, 2), q = (1, 2, 3), alpha = 5, 3 draws: 0.586848."""
    model: Any = SDAC("MlpPolicy", "Pendulum-v1", **TINY)
    model.policy.denoiser.given = lambda features: lambda x, t: th.full_like(x, 0.5)
    guesses = th.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1)
    weights = th.tensor([1.0, 2.0, 3.0]).softmax(dim=0).view(3, 1)
    loss = model._weighted_denoising_loss(th.zeros(1, 3), th.zeros(1, 1), th.zeros(1, dtype=th.long), guesses, weights)
    assert loss.item() == pytest.approx(0.586848, rel=1e-5)
    assert (weights * guesses[..., 0]).sum().item() == pytest.approx(1.24045, rel=1e-5)  # where it is least


@pytest.mark.parametrize(("as_meant", "expected"), [(False, [4.48169, 4.48169]), (True, [1.28403, 1.64872])])
def test_dpmd_weights_and_running_moments_are_the_authors(as_meant: bool, expected: list[float]) -> None:
    """q = (10, 12), mean 8, deviation 4, alpha = 2; then 8.003 and 3.997."""
    model: Any = DPMD("MlpPolicy", "Pendulum-v1", standardize_as_meant=as_meant, **TINY)
    with th.no_grad():
        model.policy.log_temperature.fill_(math.log(2.0))
    model.policy.q_mean.fill_(8.0)
    model.policy.q_std.fill_(4.0)
    model.critic.q_values = lambda features, actions: th.tensor([10.0, 12.0]).view(1, 2, 1).expand(2, -1, -1)
    weights = model._weights(th.zeros(2, 3), th.zeros(2, 1))
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert [model.policy.q_mean.item(), model.policy.q_std.item()] == pytest.approx([8.003, 3.997], rel=1e-6)
    if as_meant:  # squared errors (1, 4)
        errors = th.tensor([[1.0], [2.0]])
        model.policy.denoiser.given = lambda features: lambda x, t: errors
        t = th.zeros(2, dtype=th.long)
        loss = model._weighted_denoising_loss(th.zeros(2, 3), th.zeros(2, 1), t, th.zeros(2, 1), weights)
        assert loss.item() == pytest.approx(3.93946, rel=1e-5)


def test_a_repeated_critic_step_moves_a_parameter_by_twice_the_learning_rate() -> None:
    model: Any = DPMD("MlpPolicy", "Pendulum-v1", **TINY).learn(20)
    before = [parameter.clone() for parameter in model.critic.parameters()]
    model.train(1, 8)
    moved = th.cat([(new - old).abs().flatten() for new, old in zip(model.critic.parameters(), before, strict=True)])
    assert moved.max().item() == pytest.approx(2 * 3e-4, rel=1e-3)


def test_the_denoiser_learns_at_every_other_update_beginning_with_the_first(algorithm: Any) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **TINY | dict(learning_starts=1_000)).learn(30)
    names = ["critic.layers.0.weight", "denoiser.network.0.weight", "denoiser_target.network.0.weight"]
    changed = what_changes(model, names, 4)
    assert changed == [[True, True, True], [True, False, False]] * 2


def test_actions_that_are_stored_have_the_noise_of_the_temperature_and_predicted_ones_stay_in_the_box(
    algorithm: Any,
) -> None:
    """At first its standard deviation is half of the box, around the policy's own action."""
    model = algorithm("MlpPolicy", "Pendulum-v1", **TINY).learn(20)
    policy_action = th.full((1, 1), 0.7)
    model.policy.act = lambda features, *draws: policy_action
    model._n_updates, model._last_obs = 1, model.env.reset()
    stored = np.array([model._sample_action(0)[1].item() for _ in range(3_000)])
    assert stored.mean() == pytest.approx(0.7, abs=5 * 0.5 / 3_000**0.5)
    assert stored.std() == pytest.approx(0.5, rel=5 / 6_000**0.5)
    del model.policy.act
    actions = model.predict(model.replay_buffer.observations[:20, 0])[0]
    assert all(model.action_space.contains(action) for action in actions)


def test_noise_is_clipped_where_that_is_asked_for(algorithm: Any) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", clip_noisy_actions=True, **TINY | dict(buffer_size=200)).learn(200)
    assert np.abs(model.replay_buffer.actions[:200]).max() == 1.0


def best_of_chains(model: Any, obs: th.Tensor, n: int) -> th.Tensor:
    """The best of the online denoiser's chains by the smaller critic, and the noise of the temperature; written out."""
    process, rows = model.policy.process, obs.repeat_interleave(n, dim=0)
    x, z = 0.5 * th.randn(len(rows), 1), th.randn(process.n_steps - 1, len(rows), 1)
    alpha_bar = [1.0, *linear_schedule(process.n_steps, 0.8).tolist()]
    with th.no_grad():
        for t in range(process.n_steps - 1, -1, -1):
            now, before = alpha_bar[t + 1], alpha_bar[t]
            beta = 1 - now / before
            clean = ((x - (1 - now) ** 0.5 * model.policy.denoiser(rows, x, t)) / now**0.5).clamp(-1, 1)
            x = (beta * before**0.5 * clean + (1 - before) * (1 - beta) ** 0.5 * x) / (1 - now)
            if t > 0:
                x = x + (beta * (1 - before) / (1 - now)) ** 0.5 * z[process.n_steps - 1 - t]
        q_values = model.critic(rows, x).amin(dim=0).view(-1, n)
    best = x.view(-1, n).gather(1, q_values.argmax(dim=1, keepdim=True))
    return best + 0.1 * 5.0 * th.randn_like(best)


def test_sdacs_loss_is_the_one_written_out() -> None:
    model: Any = SDAC("MlpPolicy", "Pendulum-v1", n_guesses=5, n_action_samples=3, n_denoising_steps=4, **TINY)
    model._n_updates, batch = 1, random_batch(model)
    th.manual_seed(2)
    (loss,) = model._before_td_step(batch)

    th.manual_seed(2)
    obs = batch.observations
    actions = best_of_chains(model, obs, 3)
    t = th.randint(4, (8,))
    alpha_bar = linear_schedule(4, 0.8)[t, None].float()
    x = alpha_bar.sqrt() * actions + (1 - alpha_bar).sqrt() * th.randn(8, 1)
    guesses = th.randn(5, 8, 1)
    with th.no_grad():
        q_values = []
        for e in guesses:
            q_values.append(
                model.critic(obs, ((x - (1 - alpha_bar).sqrt() * e) / alpha_bar.sqrt()).clamp(-1, 1)).amin(0)
            )
        weights = th.softmax(5 / 5.0 * th.stack(q_values), dim=0)
    errors = (model.policy.denoiser(obs, x, t) - guesses).square()
    assert loss.value.item() == pytest.approx((weights * errors).mean().item(), rel=1e-4)


def test_dpmds_loss_is_the_one_written_out() -> None:
    """On actions of the TD target at the next observations, with the critics of after the step."""
    model: Any = DPMD("MlpPolicy", "Pendulum-v1", n_action_samples=3, n_denoising_steps=4, **TINY)
    model._n_updates, batch = 1, random_batch(model)
    th.manual_seed(3)
    actions = model._next_actions(batch)
    th.manual_seed(3)
    assert th.allclose(actions, best_of_chains(model, batch.next_observations, 3), atol=1e-5)
    for optimizer in model.policy.optimizers.values():
        optimizer.zero_grad()
    th.manual_seed(4)
    loss = next(model._after_td_step(batch, th.zeros(2, 8, 1), actions))

    th.manual_seed(4)
    t, e = th.randint(4, (8,)), th.randn(8, 1)
    alpha_bar = linear_schedule(4, 0.8)[t, None].float()
    x = alpha_bar.sqrt() * actions + (1 - alpha_bar).sqrt() * e
    q_values = model.critic(batch.next_observations, actions).amin(0)
    weights = ((q_values - 0.0 / 1.0).clamp(-3, 3) / 5.0).exp().detach()
    errors = (model.policy.denoiser(batch.next_observations, x, t) - e).square()
    assert loss.value.item() == pytest.approx((weights * errors).mean().item(), rel=1e-5)


def test_dpmds_moments_move_at_every_update() -> None:
    model: Any = DPMD("MlpPolicy", "Pendulum-v1", **TINY | dict(learning_starts=1_000)).learn(30)
    changed = what_changes(model, ["q_mean", "q_std", "denoiser.network.0.weight"], 4)
    assert changed == [[True, True, due] for due in (True, False) * 2]


@pytest.mark.parametrize("update", [1, 50_000, 100_000, 150_000])
def test_the_actors_rate_falls_between_its_updates_25_000_and_75_000(algorithm: Any, update: int) -> None:
    """Of which there is one for every two: 3e-4, 3e-4, 1.65e-4, 3e-5."""
    model = algorithm("MlpPolicy", "Pendulum-v1", **TINY)
    model._n_updates = update
    expected = {1: 3e-4, 50_000: 3e-4, 100_000: 1.65e-4, 150_000: 3e-5}[update]
    assert model._learning_rates()["actor"] == pytest.approx(expected)
    model.final_actor_learning_rate = None
    assert model._learning_rates()["actor"] == 3e-4


def test_number_of_parameters_is_that_of_table_2(algorithm: Any) -> None:
    """On Humanoid-v4 (376, 17): 707,395, of which the critics have 465,410."""
    sizes = parameters_on_humanoid(algorithm)
    assert (sizes["critic"], sum(sizes.values())) == (465_410, 707_395)
