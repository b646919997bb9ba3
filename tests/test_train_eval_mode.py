"""Batch normalisation and dropout: at work while the critic is trained, at rest elsewhere."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_lql import NCLQL


class FlattenWithBatchNorm(BaseFeaturesExtractor):
    """The observation, normalised over the batch."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        self.batch_norm = nn.BatchNorm1d(observation_space.shape[0])

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.batch_norm(observations)
        return features


class FlattenWithDropout(BaseFeaturesExtractor):
    """The observation, of which half is dropped."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.dropout(observations)
        return features


def trained(algorithm: Any, tiny: dict[str, Any], extractor: type[BaseFeaturesExtractor], **kwargs: Any) -> Any:
    """A model with a filled buffer, a few updates old; short steps as long as the score keep actions in the box."""
    gentle = dict(normalize_score=False, inverse_temperature=0.3 if algorithm is NCLQL else 300.0)
    policy_kwargs = dict(net_arch=[16], features_extractor_class=extractor)
    settings = tiny | gentle | dict(policy_kwargs=policy_kwargs) | kwargs
    return algorithm("MlpPolicy", "Pendulum-v1", seed=0, **settings).learn(55)


def observations(model: Any, n: int = 10) -> np.ndarray:
    model.observation_space.seed(0)
    return np.stack([model.observation_space.sample() for _ in range(n)])


def statistics(critic: Any) -> list[th.Tensor]:
    """Copies of the running mean and variance."""
    batch_norm = critic.features_extractor.batch_norm
    return [batch_norm.running_mean.clone(), batch_norm.running_var.clone()]


def equal(first: list[th.Tensor], second: list[th.Tensor]) -> bool:
    return all(map(th.equal, first, second))


def test_running_statistics_change_while_training_only(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithBatchNorm)
    before = statistics(model.critic)
    obs = observations(model)
    model.q_value(obs, np.zeros((10, 1)))
    for deterministic in (False, True):
        model.predict(obs, deterministic=deterministic)
    assert equal(statistics(model.critic), before)
    model.train(gradient_steps=1, batch_size=16)
    assert not any(map(th.equal, statistics(model.critic), before))


def test_collecting_transitions_leaves_running_statistics_alone(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithBatchNorm)
    model.gradient_steps = 0
    before = statistics(model.critic)
    model.learn(10)
    assert equal(statistics(model.critic), before)


def test_the_target_receives_running_statistics_whole(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithBatchNorm, tau=0.0)
    before = statistics(model.critic_target)
    model.train(gradient_steps=1, batch_size=16)
    assert not equal(statistics(model.critic_target), before)
    assert equal(statistics(model.critic_target), statistics(model.critic))


def test_running_statistics_of_the_target_wait_for_the_interval(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithBatchNorm, target_update_interval=100)
    before = statistics(model.critic_target)
    model.train(gradient_steps=2, batch_size=16)
    assert equal(statistics(model.critic_target), before)
    assert not equal(statistics(model.critic), before)


@pytest.mark.parametrize("extractor", [FlattenWithBatchNorm, FlattenWithDropout])
def test_the_online_critic_trains_in_training_mode_and_the_target_never_does(
    algorithm: Any, tiny: dict[str, Any], extractor: type[BaseFeaturesExtractor]
) -> None:
    model = trained(algorithm, tiny, extractor)
    modes: set[tuple[str, bool]] = set()
    for name in ("critic", "critic_target"):
        getattr(model, name).features_extractor.register_forward_pre_hook(
            lambda module, _, name=name: modes.add((name, module.training))
        )
    model.train(gradient_steps=2, batch_size=16)
    assert modes == {("critic", True), ("critic_target", False)}
    modes.clear()
    model.predict(model.observation_space.sample())
    assert modes == {("critic", False)}
    assert not any(module.training for module in model.critic_target.modules())


def test_dropout_is_off_except_in_training(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithDropout)
    model.train(gradient_steps=1, batch_size=16)
    obs = observations(model)
    np.testing.assert_array_equal(*(model.q_value(obs, np.zeros((10, 1))) for _ in range(2)))
    first, _ = model.predict(obs, deterministic=True)
    assert len(np.unique(first)) > 1
    for _ in range(5):
        np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], first)


def test_dropout_is_on_while_training(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, FlattenWithDropout)
    model.policy.set_training_mode(True)
    obs, actions = th.ones(20, 3), th.zeros(20, 1)
    assert not th.equal(model.critic(obs, actions), model.critic(obs, actions))
    assert th.equal(model.critic_target(obs, actions), model.critic_target(obs, actions))


def test_a_loaded_model_has_the_same_running_statistics(algorithm: Any, tiny: dict[str, Any], tmp_path: Any) -> None:
    model = trained(algorithm, tiny, FlattenWithBatchNorm)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    assert equal(statistics(loaded.critic), statistics(model.critic))
    assert equal(statistics(loaded.critic_target), statistics(model.critic_target))


def test_non_finite_observations_leave_the_running_statistics(algorithm: Any, tiny: dict[str, Any]) -> None:
    """A forward pass changes them before any loss is known."""
    model = trained(algorithm, tiny, FlattenWithBatchNorm)
    good = deepcopy(model.policy.state_dict())
    model.replay_buffer.observations[:] = np.nan
    with pytest.raises(ValueError, match="critic_loss was nan"):
        model.train(gradient_steps=2, batch_size=8)
    spoilt = model.policy.state_dict()
    assert all(th.equal(good[name], spoilt[name]) for name in good if not name.endswith("num_batches_tracked"))
