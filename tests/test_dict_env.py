"""Dictionary observations: vectors, images and discrete values together."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

#: Small nets and a small buffer: images take memory, and their convolutions time
SMALL: dict[str, Any] = dict(learning_starts=12, buffer_size=60, batch_size=4)


class DictEnv(gym.Env[dict[str, Any], np.ndarray]):
    """Random observations of several kinds; reward is the first action coordinate; episodes of ten steps."""

    def __init__(self, with_image: bool = True, channel_first: bool = False) -> None:
        kinds: dict[str, spaces.Space[Any]] = {
            "vector": spaces.Box(-5.0, 5.0, (3,), np.float32),
            "discrete": spaces.Discrete(4),
        }
        if with_image:
            kinds["image"] = spaces.Box(0, 255, (1, 36, 36) if channel_first else (36, 36, 1), np.uint8)
        self.observation_space = spaces.Dict(kinds)
        self.action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), False, self.steps == 10, {}


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("channel_first", [True, False])
def test_vector_image_and_discrete_are_learned_from_together(
    algorithm: Any, tiny: dict[str, Any], channel_first: bool, n_envs: int
) -> None:
    env = make_vec_env(DictEnv, n_envs=n_envs, env_kwargs=dict(channel_first=channel_first))
    extractor = dict(features_extractor_kwargs=dict(cnn_output_dim=8))
    model = algorithm("MultiInputPolicy", env, **(tiny | SMALL | dict(policy_kwargs=dict(net_arch=[8]) | extractor)))
    model.learn(16)
    assert model._n_updates > 0
    assert model.critic.input_parts[0] == 3 + 4 + 8  # the vector, the discrete value one-hot, the image's features
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    actions, _ = model.predict(model.env.reset(), deterministic=True)
    assert actions.shape == (n_envs, 2)


@pytest.mark.parametrize("changed", ["vector", "discrete", "image"])
def test_every_part_of_the_observation_reaches_the_critic(algorithm: Any, tiny: dict[str, Any], changed: str) -> None:
    model = algorithm("MultiInputPolicy", DictEnv(channel_first=True), **(tiny | SMALL))
    obs = dict(vector=np.zeros((1, 3)), discrete=np.zeros((1, 1)), image=np.zeros((1, 1, 36, 36)))
    other = obs | {changed: obs[changed] + 1}
    action = np.zeros((1, 2))
    assert model.q_value(obs, action) != model.q_value(other, action)


def test_a_dict_without_images_is_learned_from(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MultiInputPolicy", DictEnv(with_image=False), **(tiny | SMALL)).learn(16)
    obs = model.observation_space.sample()
    one, _ = model.predict(obs, deterministic=True)
    batch, _ = model.predict({key: np.array([value, value]) for key, value in obs.items()}, deterministic=True)
    np.testing.assert_array_equal(batch, [one, one])


def test_vec_normalize_on_a_dict_normalises_what_the_critic_sees(algorithm: Any, tiny: dict[str, Any]) -> None:
    env = VecNormalize(make_vec_env(lambda: DictEnv(with_image=False), n_envs=2), norm_obs_keys=["vector"])
    model = algorithm("MultiInputPolicy", env, **(tiny | SMALL)).learn(20)
    raw = model.replay_buffer.observations["vector"][: model.replay_buffer.pos]
    assert np.abs(raw).max() > 2.0  # uniform on [-5, 5]: stored as the environment gave it
    sampled = model.replay_buffer.sample(50, env=env).observations["vector"]
    mean, std = env.obs_rms["vector"].mean, np.sqrt(env.obs_rms["vector"].var + env.epsilon)
    possible = np.clip((raw - mean) / std, -10.0, 10.0).reshape(-1, 3)
    distances = np.abs(sampled.numpy()[:, None] - possible[None]).max(axis=2).min(axis=1)
    np.testing.assert_allclose(distances, 0.0, atol=1e-5)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_other_policies_are_refused_on_a_dict(algorithm: Any, tiny: dict[str, Any], policy: str) -> None:
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        algorithm(policy, DictEnv(with_image=False), **tiny)


def test_n_step_returns_are_refused_on_a_dict(algorithm: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"n_steps=3.*Dict"):
        algorithm("MultiInputPolicy", DictEnv(with_image=False), n_steps=3, **tiny)
