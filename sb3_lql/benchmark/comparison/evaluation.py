"""Evaluation of an agent during its training, which does not notice."""

from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from sb3_lql.benchmark.comparison.results import MODES
from sb3_lql.saving.random_states import random_states_kept

#: Evaluations of the same seed begin in the same states, which are not those of the training.
SEED_SHIFT = 1_000_000


def evaluate(model: BaseAlgorithm, env: VecEnv, seed: int) -> dict[str, dict[str, list[Any]]]:
    """
    Undiscounted ``returns`` and ``lengths`` of one episode in each of the environments, for both modes. ``seed`` is
    that of the training.
    """
    if model.get_vec_normalize_env() is not None:
        assert model.env is not None
        sync_envs_normalization(model.env, env)
    episodes = {}
    for mode in MODES:
        with random_states_kept():
            set_random_seed(seed + SEED_SHIFT)
            env.seed(seed + SEED_SHIFT)
            returns, lengths = evaluate_policy(
                model,
                env,
                n_eval_episodes=env.num_envs,
                deterministic=mode == "deterministic",
                return_episode_rewards=True,
            )
        episodes[mode] = {"returns": np.asarray(returns).tolist(), "lengths": np.asarray(lengths).tolist()}
    return episodes
