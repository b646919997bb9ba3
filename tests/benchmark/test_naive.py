"""The obvious implementation agrees with the library's, weight for weight, when both get the same draws."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_lql import LQL
from sb3_lql.benchmark.naive import NaiveUpdate

BATCH = 16


def make_model(algorithm: Any, **kwargs: Any) -> Any:
    arguments = dict(seed=1, buffer_size=10, policy_kwargs=dict(net_arch=[32, 32]), device="cpu") | kwargs
    model = algorithm("MlpPolicy", "Reacher-v5", **arguments)
    model._setup_learn(1)  # for the logger
    return model


def random_batch(model: Any) -> ReplayBufferSamples:
    """A minibatch as SB3's buffer gives it for MuJoCo: observations are float64."""
    shape = (BATCH, *model.observation_space.shape)
    return ReplayBufferSamples(
        observations=th.randn(shape, dtype=th.float64),
        actions=(th.rand(BATCH, model.policy.action_dim) * 4 - 2).clamp(-1, 1),  # half of them on the border
        next_observations=th.randn(shape, dtype=th.float64),
        dones=(th.rand(BATCH, 1) < 0.3).float(),
        rewards=th.randn(BATCH, 1),
    )


def parameters(naive: NaiveUpdate) -> list[dict[str, th.Tensor]]:
    return [{name: value.clone() for name, value in c.named_parameters()} for c in (*naive.critics, *naive.targets)]


SETTINGS: list[dict[str, Any]] = [
    {},
    dict(normalize_score=False, inverse_temperature=20.0),
    dict(tau=0.5, gamma=0.5, reward_scale=1.0, learning_rate=1e-3, n_langevin_steps=3),
    dict(policy_kwargs=dict(net_arch=[16, 8, 32], n_critics=3, activation_fn=th.nn.Tanh)),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["defaults", "plain score", "other numbers", "other networks"])
def test_updates_are_the_librarys(algorithm: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Wide smoothing, so that noisy actions lie far outside the box: they are not clipped
    smoothing = {} if algorithm is LQL else dict(sigma_max=2.0, sigma_min=0.02)
    model = make_model(algorithm, **settings | smoothing)
    naive = NaiveUpdate(model)
    before = parameters(naive)
    for seed in range(3):
        batch = random_batch(model)
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *args, batch=batch, **kwargs: batch)
        th.manual_seed(seed)
        model.train(gradient_steps=1, batch_size=BATCH)
        th.manual_seed(seed)
        naive.update(batch)
    for ours, theirs in zip(parameters(NaiveUpdate(model)), parameters(naive), strict=True):
        for name, value in theirs.items():
            th.testing.assert_close(ours[name], value, atol=1e-5, rtol=0)
    moved = parameters(naive)[0]["net.0.weight"] - before[0]["net.0.weight"]
    assert moved.abs().max() > 1e-4  # three steps of Adam are some 3e-4 long: what could differ has moved


def test_critics_are_the_ensembles_members(algorithm: Any) -> None:
    model = make_model(algorithm)
    obs, actions, levels = th.randn(50, 10), th.rand(50, 2) * 2 - 1, th.arange(50) % 10
    q_values = model.critic(obs, actions, None if algorithm is LQL else levels)
    for critic, expected in zip(NaiveUpdate(model).critics, q_values, strict=True):
        th.testing.assert_close(critic(obs, actions, levels), expected, atol=1e-6, rtol=0)


def test_chain_ends_where_the_librarys_does(algorithm: Any) -> None:
    model = make_model(algorithm)
    naive = NaiveUpdate(model)
    obs = th.randn(50, 10)
    start, noise = naive.draw(50)
    assert start.shape == (50, 2)
    assert noise.shape == (20, 50, 2)
    expected = model.policy.sample_actions(obs, initial_actions=start, noise=noise)
    actions = naive.chain(obs, start, noise)
    assert not actions.requires_grad
    th.testing.assert_close(actions, expected, atol=1e-4, rtol=0)


def test_predict_draws_the_librarys_actions(algorithm: Any) -> None:
    model = make_model(algorithm)
    naive = NaiveUpdate(model)
    observations = np.random.default_rng(0).standard_normal((5, 10))
    th.manual_seed(3)
    expected, _ = model.predict(observations)
    th.manual_seed(3)
    np.testing.assert_allclose(naive.predict(observations), expected, atol=1e-4)


def test_weights_are_copies(algorithm: Any) -> None:
    model = make_model(algorithm)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    NaiveUpdate(model).update(random_batch(model))
    assert all(th.equal(before[name], value) for name, value in model.policy.state_dict().items())


def test_models_without_vectors_of_observations_are_refused(algorithm: Any) -> None:
    model = make_model(algorithm)
    model.observation_space = gym.spaces.Box(0, 255, (3, 36, 36), np.uint8)
    with pytest.raises(ValueError, match="pass one that observes a Box of vectors"):
        NaiveUpdate(model)
