"""Both algorithms learn to repeat what they observe."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql import LQL, NCLQL

#: Reward 1 for an action within 0.5 of the observation, 0 elsewhere; episodes of 100 steps return 100 at most.
MAXIMUM = 100.0

#: Chains that first reach across the box [-1, 1] and end with short steps. LQL needs a pair of step sizes for that: its
#: constant default travels 0.5 at most, so that from most starts the other half of the box is out of reach.
CHAINS: dict[Any, dict[str, Any]] = {
    LQL: dict(langevin_step_size=(1e-3, 1e-4), n_langevin_steps=10),
    NCLQL: dict(n_noise_levels=5, n_langevin_steps=1, sigma_max=0.5, sigma_min=0.05),
}


def mean_return(model: Any, env: VecEnv, **kwargs: Any) -> float:
    mean, _ = evaluate_policy(model, env, **kwargs)
    return float(np.mean(mean))


@pytest.mark.slow
def test_the_identity_is_learned(algorithm: Any) -> None:
    env = make_vec_env(lambda: IdentityEnvBox(eps=0.5), seed=0)
    model = algorithm(
        "MlpPolicy",
        env,
        learning_rate=3e-3,
        buffer_size=1_000,
        learning_starts=500,
        gamma=0.5,
        tau=0.05,
        train_freq=250,
        gradient_steps=250,
        reward_scale=1.0,
        policy_kwargs=dict(net_arch=[64, 64]),
        seed=0,
        device="cpu",
        **CHAINS[algorithm],
    )
    threshold = 0.9 * MAXIMUM
    assert mean_return(model, env, n_eval_episodes=1) < threshold
    model.learn(1_000)
    # From a random start where Q is flat nothing leads LQL to the reward; noise levels do lead NC-LQL
    for deterministic in [True] if algorithm is LQL else [True, False]:
        assert mean_return(model, env, n_eval_episodes=2, deterministic=deterministic) >= threshold
