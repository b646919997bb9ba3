"""LQL with the tempered sampler: what it learns, saves, and says of its law."""

import math
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_lql import LQL, NCLQL, export
from sb3_lql.benchmark.bandit.distributions import grid
from sb3_lql.benchmark.bandit.landscape import exact_landscape, smoothed_reward
from sb3_lql.benchmark.bandit.tempering import adapted
from sb3_lql.envs.multimodal_bandit import BOUND, reward
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import radial_inverse_temperature
from sb3_lql.langevin.tempered_policies import TemperedPolicy
from sb3_lql.langevin.tempered_sampler import TemperedSampler
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.layers import EnsembleLinear
from tests.baselines.checks import TINY, assert_replays, assert_resumes, assert_saved

#: A fast tempered model.
SMALL: dict[str, Any] = TINY | dict(sampler="tempered", n_particles=3, n_rungs=2)
#: One with a learned temperature and soft values.
SOFT: dict[str, Any] = SMALL | dict(inverse_temperature="auto", soft_backup=True)


def pendulum(**kwargs: Any) -> LQL:
    return LQL("MlpPolicy", "Pendulum-v1", **SMALL | kwargs)


class TwoStates(gym.Env[np.ndarray, np.ndarray]):
    """Any action leads from the first state to the second, for no reward; there, the reward is the action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.second = False
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action[0]) if self.second else 0.0
        ends, self.second = self.second, True
        return np.ones(1, np.float32), reward, ends, False, {}


@pytest.mark.parametrize("soft", [True, False])
def test_values_are_those_worked_out_by_hand(soft: bool) -> None:
    """
    Q(second, a) = a. The first state is worth gamma times log(2 sinh(w) / w) / w, the soft value of the second, or
    gamma times its mean Q, coth(w) - 1 / w.
    """
    w, gamma = 2.0, 0.9
    model = LQL(
        "MlpPolicy",
        TwoStates(),
        learning_rate=3e-3,
        gamma=gamma,
        tau=0.05,
        reward_scale=1.0,
        sampler="tempered",
        n_particles=8,
        n_rungs=4,
        inverse_temperature=w,
        soft_backup=soft,
        **TINY | dict(policy_kwargs=dict(net_arch=[32, 32]), learning_starts=499, batch_size=64),
    )
    model.learn(500)
    model.train(700, 64)
    actions = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(model.q_value(np.ones((5, 1), np.float32), actions), actions[:, 0], atol=0.05)
    value = math.log(2 * math.sinh(w) / w) / w if soft else 1 / math.tanh(w) - 1 / w
    # The two differ by 0.1
    assert model.q_value(np.zeros((5, 1), np.float32), actions).mean() == pytest.approx(gamma * value, abs=0.03)


def test_the_law_is_that_of_the_smallest_critic() -> None:
    """Linear critics 2 a and 2 a + 10 with w = 3: the density of the first, c exp(c a) / (2 sinh c) with c = 6."""
    model = pendulum(inverse_temperature=3.0, policy_kwargs=dict(net_arch=[]), n_rungs=20)
    with th.no_grad():
        layer = cast(EnsembleLinear, model.critic.layers[0])
        layer.weight.zero_()
        layer.weight[:, -1] = 2.0
        layer.bias[1] = 10.0
    th.manual_seed(0)
    obs = np.stack([model.observation_space.sample() for _ in range(3)])
    scaled = np.array([-0.5, 0.0, 0.9])
    actions = (2.0 * scaled[:, None]).astype(np.float32)
    c = 6.0
    expected = c * scaled + math.log(c / (2 * math.sinh(c)))
    found = model.log_prob(obs, actions, n_particles=2_000)
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert model.log_prob(obs[0], actions[0]).shape == ()
    # The torque goes from -2 to 2: half the density
    wide = model.log_prob(obs, actions, n_particles=2_000, environment_units=True)
    np.testing.assert_allclose(wide, expected - math.log(2), atol=0.1)
    entropy = math.log(2 * math.sinh(c) / c) - c / math.tanh(c) + 1
    np.testing.assert_allclose(model.entropy(obs, n_particles=2_000), entropy, atol=0.1)
    wide = model.entropy(obs[0], n_particles=2_000, environment_units=True)
    np.testing.assert_allclose(wide, entropy + math.log(2), atol=0.1)
    assert wide.shape == ()


class RewardCritic(EnsembleCritic):
    """The bandit's reward, by all critics."""

    def q_values(self, features: th.Tensor, actions: th.Tensor, noise_level: Any = None) -> th.Tensor:
        return smoothed_reward(actions, 0.0)[None, :, None].expand(self.n_critics, -1, -1)


class RewardPolicy(TemperedPolicy):
    critic_class = RewardCritic


@pytest.mark.parametrize("w", [1.0, 20.0])
def test_density_and_entropy_are_the_bandits(w: float) -> None:
    """Against exp(w * reward) / Z on a grid over [-2, 2]²."""
    arguments = SMALL | dict(n_rungs=20, inverse_temperature=w, reward_scale=1.0)
    model = LQL(RewardPolicy, "MultimodalBandit-v0", **arguments)
    policy = cast(TemperedPolicy, model.policy)
    policy.sampler = adapted(policy.sampler, exact_landscape(th.zeros(1)), w, seed=0)
    points = grid().reshape(-1, 2)
    energies = w * reward(points)
    log_densities = energies - np.logaddexp.reduce(energies) + math.log(len(points) / (2 * BOUND) ** 2)
    th.manual_seed(0)
    actions = points[::8_000].astype(np.float32)
    obs = np.zeros((len(actions), 1), np.float32)
    found = model.log_prob(obs, actions, n_particles=500, environment_units=True)
    # Each is off by its own estimate of log Z
    np.testing.assert_allclose((found - log_densities[::8_000]).mean(), 0.0, atol=0.1)
    np.testing.assert_allclose(found, log_densities[::8_000], atol=0.5)
    entropy = -(np.exp(log_densities) * log_densities).mean() * (2 * BOUND) ** 2
    found = model.entropy(obs, n_particles=500, environment_units=True)
    np.testing.assert_allclose(found.mean(), entropy, atol=0.1)


def test_all_that_it_learned_is_saved(tmp_path: Path) -> None:
    model = LQL("MlpPolicy", "Pendulum-v1", **SOFT).learn(30)
    assert model.policy.sampler.n_adaptations == 10
    assert model.policy.sampler.inverse_temperature != 1.0
    assert_saved(model, tmp_path)
    given = LQL.load(tmp_path / "model.zip", inverse_temperature=7.0)
    assert given.policy.sampler.inverse_temperature == pytest.approx(7.0)


def test_a_checkpoint_resumes_bit_for_bit(tmp_path: Path) -> None:
    assert_resumes(LQL("MlpPolicy", "Pendulum-v1", **SOFT).learn(30), tmp_path)


def test_a_replayed_update_is_the_plain_one(recordings: list[Any]) -> None:
    own = dict(sampler="tempered", n_particles=3, n_rungs=2, inverse_temperature="auto_10", soft_backup=True)
    assert_replays(LQL, recordings, **own)


def test_a_loss_that_is_not_finite_spoils_nothing() -> None:
    model = LQL("MlpPolicy", "Pendulum-v1", **SOFT).learn(30)
    good = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.replay_buffer.next_observations[:] = np.nan
    with pytest.raises(ValueError, match="critic_loss"):
        model.train(1, 8)
    assert all(th.equal(value, good[name]) for name, value in model.policy.state_dict().items())


def test_deterministic_actions_do_not_depend_on_the_batch() -> None:
    model = pendulum().learn(30)
    obs = np.stack([model.observation_space.sample() for _ in range(5)])
    together = model.predict(obs, deterministic=True)[0]
    assert np.array_equal(together, np.concatenate([model.predict(each[None], deterministic=True)[0] for each in obs]))


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_is_exported(deterministic: bool, tmp_path: Path) -> None:
    export(pendulum().learn(30), tmp_path / "policy", format="torchscript", deterministic=deterministic)


def test_draws_are_not_exported_before_the_sampler_has_adapted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="let the model learn first, or pass deterministic=True"):
        export(pendulum(), tmp_path / "policy", format="torchscript", deterministic=False)
    export(pendulum(), tmp_path / "policy", format="torchscript")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(sampler="smc"), "sampler='smc'"),
        (dict(sampler="langevin", inverse_temperature="auto"), "sampler='tempered'"),
        (dict(sampler="langevin", soft_backup=True), "soft_backup=True"),
        (dict(inverse_temperature="auto_x"), "'auto_10'"),
        (dict(inverse_temperature="auto_-1"), "'auto_10'"),
        (dict(inverse_temperature=1e30), r"inverse_temperature=1e\+30 is out of range"),
        (dict(inverse_temperature="auto_1e30"), "inverse_temperature=1e"),
        (dict(target_entropy="low"), "target_entropy='low'"),
        (dict(target_entropy=0.7), "target_entropy=0.7"),  # the uniform law has log 2
        (dict(target_entropy=-1e300), "target_entropy=-1e"),
        (dict(n_particles=1), "n_particles=1"),
        (dict(n_rungs=0), "n_rungs=0"),
        (dict(bfloat16_chain=True), "bfloat16_chain=True"),
    ],
)
def test_bad_values_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pendulum(**arguments)


def sampler_of(model: LQL) -> TemperedSampler:
    return cast(TemperedPolicy, model.policy).sampler


def test_a_chain_of_another_number_of_rungs_is_loaded_and_adapted_anew(tmp_path: Path) -> None:
    model = pendulum().learn(30)
    assert sampler_of(model).n_adaptations > 0
    model.save(tmp_path / "model")
    loaded = LQL.load(tmp_path / "model", n_rungs=model.n_rungs + 3, env="Pendulum-v1")
    assert sampler_of(loaded).n_adaptations == 0
    assert len(sampler_of(loaded).log_steps) == model.n_rungs + 3
    th.testing.assert_close(loaded.critic.state_dict(), model.critic.state_dict())
    loaded.learn(30)


def test_a_name_that_is_not_auto_is_refused() -> None:
    with pytest.raises(TypeError, match="inverse_temperature='much' must be a number, 'auto'"):
        pendulum(inverse_temperature="much")


def test_policies_are_those_of_the_sampler() -> None:
    assert isinstance(pendulum().policy, TemperedPolicy)
    assert isinstance(pendulum(sampler="langevin").policy, LangevinPolicy)
    with pytest.raises(ValueError, match="TemperedPolicy"):
        LQL(LangevinPolicy, "Pendulum-v1", **SMALL)
    with pytest.raises(ValueError, match="sampler='tempered'"):
        pendulum(sampler="langevin").log_prob(np.zeros(3), np.zeros(1))


def test_nclqls_automatic_temperature_is_that_of_the_target_entropy() -> None:
    """In one dimension the law is w exp(-w |a|) / 2, whose entropy is 1 + log(2 / w)."""
    model = NCLQL("MlpPolicy", "Pendulum-v1", inverse_temperature="auto", **TINY)
    assert model.policy.sampler.inverse_temperature == pytest.approx(2 * math.exp(2))
    for entropy in (-3.0, 0.0):
        assert 1 + math.log(2 / radial_inverse_temperature(1, entropy)) == pytest.approx(entropy)
    # In two: 2 pi / w^2 is what the density is divided by, the mean of w |a| is 2
    w = radial_inverse_temperature(2, -2.0)
    assert math.log(2 * math.pi / w**2) + 2 == pytest.approx(-2.0)
    with pytest.raises(ValueError, match="normalize_score=True"):
        NCLQL("MlpPolicy", "Pendulum-v1", inverse_temperature="auto", normalize_score=False, **TINY)
