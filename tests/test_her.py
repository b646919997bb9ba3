"""Hindsight experience replay, and n-step returns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv

from sb3_lql.common.buffers import Float32NStepReplayBuffer

N_BITS = 4


def her_model(algorithm: Any, tiny: dict[str, Any], n_envs: int = 1, **buffer_kwargs: Any) -> Any:
    env = make_vec_env(BitFlippingEnv, n_envs=n_envs, env_kwargs=dict(n_bits=N_BITS, continuous=True))
    return algorithm(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=dict(n_sampled_goal=4, **buffer_kwargs),
        **tiny,
    )


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_hindsight_goals_are_learned_from(algorithm: Any, tiny: dict[str, Any], n_envs: int, strategy: str) -> None:
    model = her_model(algorithm, tiny, n_envs, goal_selection_strategy=strategy).learn(60)
    assert model._n_updates > 0
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    goals = model.replay_buffer.sample(100).observations["desired_goal"]
    assert (goals == 1).all(dim=1).any()  # the environment's goal: all bits set
    assert not (goals == 1).all()  # and goals from hindsight


def test_a_hindsight_buffer_is_saved_and_loaded(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = her_model(algorithm, tiny).learn(58)  # the last episode is not finished
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = algorithm.load(tmp_path / "model", env=model.env, device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert isinstance(loaded.replay_buffer, HerReplayBuffer)
    for key, stored in model.replay_buffer.observations.items():
        np.testing.assert_array_equal(loaded.replay_buffer.observations[key], stored)
    assert loaded.learn(5)._n_updates == model._n_updates + 5


def test_n_step_returns_use_their_own_buffer_and_discounts(algorithm: Any, tiny: dict[str, Any]) -> None:
    """The target is scaled reward plus the discount that the buffer gives, gamma**3 here and not gamma, times Q."""
    model = algorithm("MlpPolicy", "Pendulum-v1", n_steps=3, gamma=0.5, reward_scale=0.1, **tiny).learn(55)
    assert type(model.replay_buffer) is Float32NStepReplayBuffer
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, 0.5)
    # Every Q is 7: the last layer knows nothing but its bias
    with th.no_grad():
        model.critic_target.layers[-1].weight.zero_()
        model.critic_target.layers[-1].bias.fill_(7.0)
    samples = model.replay_buffer._get_samples(np.arange(10))
    assert samples.discounts is not None
    assert samples.discounts.tolist() == [[0.5**3]] * 10
    target = model._backup(samples, model._next_actions(samples))
    rewards = th.as_tensor(model.replay_buffer.rewards[:, 0])
    returns = sum(0.5**k * rewards[k : k + 10, None] for k in range(3))
    th.testing.assert_close(target, 0.1 * returns + 0.5**3 * 7.0)


def test_n_step_returns_learn_with_several_envs(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", n_envs=3), n_steps=3, **tiny).learn(60)
    assert model._n_updates == 4  # after 51, 54, 57 and 60 steps
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
