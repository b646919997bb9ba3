"""The policy: where its chains start, which of them it takes, and where it computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.engine.policy import best_of_samples, fixed_starts
from sb3_lql.langevin.policies import LangevinPolicy


def make_policy(model_class: Any = NCLQL, **kwargs: Any) -> LangevinPolicy:
    arguments = dict(seed=0, buffer_size=10, policy_kwargs=dict(net_arch=[16, 16])) | kwargs
    policy: LangevinPolicy = model_class("MlpPolicy", "Reacher-v5", **arguments).policy
    return policy


def test_chains_start_uniform_in_the_box() -> None:
    policy = make_policy(LQL, langevin_step_size=1e-20, inverse_temperature=1e-20)  # stays where it starts
    actions = policy.sample_actions(th.zeros(20_000, 10)).numpy()
    for coordinate in actions.T:
        distance = np.abs(np.sort(coordinate) - np.linspace(-1, 1, len(coordinate))).max() / 2
        assert distance < 1.95 / np.sqrt(len(coordinate))  # Kolmogorov-Smirnov at the level 0.001


def test_deterministic_action_is_the_end_of_a_noise_free_chain_from_the_centre(algorithm: Any) -> None:
    policy = make_policy(algorithm)
    obs = th.randn(1, 10)
    replayed = policy.sample_actions(obs, initial_actions=th.zeros(1, 2), noise=th.zeros(20, 1, 2))
    action = policy(obs, deterministic=True)
    assert action.dtype == th.float32
    np.testing.assert_allclose(action, replayed, atol=1e-5)  # computed in float64, and replayed in float32


@pytest.mark.parametrize("deterministic", [True, False])
def test_best_of_several_chains_has_the_highest_minimum_critic(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A weak drift, so that the chains do not all end in the same corner
    policy = make_policy(n_action_samples=8, normalize_score=False, inverse_temperature=0.1)
    obs = th.randn(5, 10)
    candidates = []

    def recorded(actions: th.Tensor, n_samples: int, q_values: Callable[[], th.Tensor]) -> th.Tensor:
        candidates.append(actions)
        return best_of_samples(actions, n_samples, q_values)

    monkeypatch.setattr("sb3_lql.engine.policy.best_of_samples", recorded)
    chosen = policy(obs, deterministic=deterministic)
    actions = th.cat(candidates).view(5, 8, 2)
    assert len(set(map(tuple, actions[0].tolist()))) == 8
    for row in range(5):
        values = [policy.critic(obs[row, None], action[None].float(), 9).min().item() for action in actions[row]]
        assert th.equal(chosen[row], actions[row, int(np.argmax(values))].float())


def test_deterministic_starts_are_the_centre_first_and_all_different() -> None:
    starts = fixed_starts(8, 2)
    assert starts[0].tolist() == [0.0, 0.0]
    assert len(set(map(tuple, starts.tolist()))) == 8
    assert starts.abs().max() <= 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_everything_follows_the_policy_to_its_device(algorithm: Any, deterministic: bool) -> None:
    # The device "meta" computes nothing, but refuses any mixture with tensors that stayed on the CPU
    policy = make_policy(algorithm, n_action_samples=3).to("meta")
    actions = policy(th.empty(4, 10, device="meta"), deterministic=deterministic)
    assert actions.is_meta
    assert actions.shape == (4, 2)


def test_chains_per_action_may_be_changed_at_any_time() -> None:
    model = NCLQL("MlpPolicy", "Reacher-v5", buffer_size=10, policy_kwargs=dict(net_arch=[8]))
    model.n_action_samples = 5
    assert model.policy.n_action_samples == 5
    with pytest.raises(ValueError, match="n_action_samples=0"):
        model.n_action_samples = 0


@pytest.mark.parametrize("deterministic", [True, False])
def test_no_observations_have_no_actions(algorithm: Any, deterministic: bool) -> None:
    assert make_policy(algorithm)(th.zeros(0, 10), deterministic=deterministic).shape == (0, 2)
