"""Normalised observations and rewards, and the memory-efficient replay buffer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize(("norm_obs", "norm_reward"), [(True, True), (True, False), (False, True)])
def test_the_buffer_stores_raw_values_and_samples_normalised_ones(
    algorithm: Any, tiny: dict[str, Any], n_envs: int, norm_obs: bool, norm_reward: bool
) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=n_envs), norm_obs=norm_obs, norm_reward=norm_reward)
    model = algorithm("MlpPolicy", env, **tiny).learn(60)
    assert model._n_updates > 0
    assert model.get_vec_normalize_env() is env
    buffer = model.replay_buffer
    # The sample draws an environment for each index: the same draws for both
    np.random.seed(0)
    raw = buffer._get_samples(np.arange(20), env=None)
    np.random.seed(0)
    sampled = buffer._get_samples(np.arange(20), env=env)
    np.testing.assert_allclose(sampled.observations, env.normalize_obs(raw.observations.numpy()), atol=1e-6)
    np.testing.assert_allclose(sampled.rewards, env.normalize_reward(raw.rewards.numpy()), atol=1e-6)
    assert th.equal(sampled.rewards, raw.rewards) != norm_reward


def test_training_reads_normalised_minibatches(algorithm: Any, tiny: dict[str, Any]) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    model = algorithm("MlpPolicy", env, **tiny).learn(60)
    sampled_with = []
    sample = model.replay_buffer.sample

    def recorded(batch_size: int, env: VecNormalize | None = None) -> Any:
        sampled_with.append(env)
        return sample(batch_size, env=env)

    model.replay_buffer.sample = recorded
    model.train(gradient_steps=2, batch_size=8)
    assert sampled_with == [env, env]


def test_a_normalised_model_is_saved_with_its_statistics(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    model = algorithm("MlpPolicy", env, **tiny).learn(60)
    model.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    new_env = VecNormalize.load(str(tmp_path / "statistics.pkl"), make_vec_env("Pendulum-v1"))
    loaded = algorithm.load(tmp_path / "model", env=new_env, device="cpu")
    assert loaded.get_vec_normalize_env() is new_env
    obs = np.array([[0.5, 0.5, 3.0]], np.float32)
    np.testing.assert_array_equal(
        loaded.predict(new_env.normalize_obs(obs), deterministic=True)[0],
        model.predict(env.normalize_obs(obs), deterministic=True)[0],
    )
    loaded.learn(60)


def test_the_memory_efficient_buffer_is_used(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm(
        "MlpPolicy",
        "Pendulum-v1",
        optimize_memory_usage=True,
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
        **(tiny | dict(buffer_size=70)),
    )
    model.learn(80)
    assert model.replay_buffer.full
    assert not hasattr(model.replay_buffer, "next_observations")
    assert model._n_updates == 30
