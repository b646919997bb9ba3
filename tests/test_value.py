"""What the critic learns where the value is known in closed form, and `q_value`, which reports it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env

GAMMA = 0.5


class ConstantReward(gym.Env[np.ndarray, np.ndarray]):
    """Reward 1 at every step, whatever is done; observes 0 and 1 by turns; terminates at every step, or never."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(np.array([0.0, -10.0], np.float32), np.array([4.0, 10.0], np.float32))

    def __init__(self, terminate: bool) -> None:
        self.terminate = terminate
        self.steps = 0

    def observe(self) -> np.ndarray:
        return np.full(2, self.steps % 2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), 1.0, self.terminate, False, {}


def learned_values(algorithm: Any, tiny: dict[str, Any], terminate: bool, **kwargs: Any) -> np.ndarray:
    """What a model that saw episodes of two steps thinks of actions all over the box: at 0, then at 1."""
    env = make_vec_env(lambda: TimeLimit(ConstantReward(terminate), max_episode_steps=2))
    settings = tiny | dict(gamma=GAMMA, tau=0.1, learning_rate=1e-2, seed=0) | kwargs
    model = algorithm("MlpPolicy", env, **settings)
    model.learn(settings["learning_starts"] + 1)
    model.train(gradient_steps=250, batch_size=32)
    actions = [[0.0, -10.0], [4.0, 10.0], [2.0, 0.0], [0.0, 10.0]]
    return np.array([model.q_value(np.full((4, 2), observation), actions) for observation in (0, 1)])


@pytest.mark.parametrize("reward_scale", [0.2, 1.0])
def test_a_time_limit_is_no_end_and_the_value_is_the_geometric_series(
    algorithm: Any, tiny: dict[str, Any], reward_scale: float
) -> None:
    """1 + gamma + gamma**2 + ... = 1 / (1 - gamma), at both steps of an episode."""
    values = learned_values(algorithm, tiny, terminate=False, reward_scale=reward_scale)
    np.testing.assert_allclose(values, 1.0 / (1.0 - GAMMA), rtol=0.05)


def test_termination_is_an_end_and_the_value_is_the_reward(algorithm: Any, tiny: dict[str, Any]) -> None:
    values = learned_values(algorithm, tiny, terminate=True)[0]  # every episode ends before 1 is observed
    np.testing.assert_allclose(values, 1.0, rtol=0.05)


def test_n_step_returns_have_the_same_value(algorithm: Any, tiny: dict[str, Any]) -> None:
    values = learned_values(algorithm, tiny, terminate=False, n_steps=3)
    np.testing.assert_allclose(values, 1.0 / (1.0 - GAMMA), rtol=0.05)


def test_a_time_limit_can_be_taken_for_an_end(algorithm: Any, tiny: dict[str, Any]) -> None:
    kwargs = dict(handle_timeout_termination=False)
    first, last = learned_values(algorithm, tiny, terminate=False, replay_buffer_kwargs=kwargs)
    np.testing.assert_allclose(first, 1.0 + GAMMA, rtol=0.05)
    np.testing.assert_allclose(last, 1.0, rtol=0.05)


@pytest.fixture
def model(algorithm: Any, tiny: dict[str, Any]) -> Any:
    return algorithm("MlpPolicy", ConstantReward(terminate=False), reward_scale=0.25, **tiny)


def test_q_value_has_one_number_per_observation(model: Any) -> None:
    obs = np.ones((5, 2), np.float32)
    actions = np.array([model.action_space.sample() for _ in range(5)])
    values = model.q_value(obs, actions)
    assert values.shape == (5,)
    single = model.q_value(obs[0], actions[0])
    assert single.shape == ()
    np.testing.assert_allclose(single, values[0], rtol=1e-5)
    assert model.q_value(obs[:1], actions[:1]).shape == (1,)


def test_q_value_is_the_smallest_critic_in_units_of_rewards_at_unscaled_actions(model: Any) -> None:
    obs, action = np.ones((1, 2), np.float32), np.array([[1.0, 5.0]])  # -0.5 and 0.5 of the box [0, 4] x [-10, 10]
    tensor, _ = model.policy.obs_to_tensor(obs)
    critics = model.critic(tensor, tensor.new_tensor([[-0.5, 0.5]])).detach().numpy()
    assert critics.shape == (2, 1, 1)
    assert critics[0] != critics[1]
    np.testing.assert_allclose(model.q_value(obs, action), critics.min(axis=0)[0] / 0.25, rtol=1e-5)


@pytest.mark.parametrize(("n_observations", "n_actions"), [(3, 2), (2, 3), (1, 2), (2, 1)])
def test_q_value_refuses_different_numbers(model: Any, n_observations: int, n_actions: int) -> None:
    with pytest.raises(ValueError, match=f"{n_actions} actions for {n_observations} observations"):
        model.q_value(np.zeros((n_observations, 2)), np.zeros((n_actions, 2)))


def test_q_value_refuses_two_actions_for_a_single_observation(model: Any) -> None:
    with pytest.raises(ValueError, match="2 actions for 1 observations"):
        model.q_value(np.zeros(2), np.zeros((2, 2)))


@pytest.mark.parametrize("action", [[4.1, 0.0], [0.0, np.nan]])
def test_q_value_refuses_actions_out_of_bounds(model: Any, action: list[float]) -> None:
    with pytest.raises(ValueError, match="outside"):
        model.q_value(np.zeros(2), np.array(action))
