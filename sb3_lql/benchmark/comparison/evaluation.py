"""Evaluation of an agent during its training, which does not notice."""

from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from sb3_lql.benchmark.comparison.results import MODES
from sb3_lql.common.policies import LangevinPolicy
from sb3_lql.common.random_states import random_states_kept

#: Evaluations of the same seed begin in the same states, which are not those of the training.
SEED_SHIFT = 1_000_000


def evaluate(model: BaseAlgorithm, env: VecEnv, seed: int) -> dict[str, dict[str, list[Any]]]:
    """
    :param model: the agent
    :param env: as many environments as there are episodes to play, all at once
    :param seed: seed of the training
    :return: for the modes "deterministic" and "stochastic" the undiscounted ``returns`` and ``lengths`` of the episodes
    """
    if model.get_vec_normalize_env() is not None:
        assert model.env is not None
        sync_envs_normalization(model.env, env)
    episodes = {}
    for mode in MODES:
        deterministic = mode == "deterministic"
        policy = model.policy
        predictor: PolicyPredictor = model
        if deterministic and isinstance(policy, LangevinPolicy):
            predictor = NoiseFreeChains(policy)
        with random_states_kept():
            set_random_seed(seed + SEED_SHIFT)
            env.seed(seed + SEED_SHIFT)
            returns, lengths = evaluate_policy(
                predictor, env, n_eval_episodes=env.num_envs, deterministic=deterministic, return_episode_rewards=True
            )
        episodes[mode] = {"returns": np.asarray(returns).tolist(), "lengths": np.asarray(lengths).tolist()}
    return episodes


class NoiseFreeChains:
    """
    The deterministic ``predict`` of a Langevin policy up to rounding, of all environments at once.

    ``predict`` itself takes them one by one, so that an action hangs on its own observation to the last bit: for the
    mean of many episodes that is of no use, and takes twenty times as long.

    :param policy: the policy
    """

    def __init__(self, policy: LangevinPolicy) -> None:
        self.policy = policy

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's ``predict``, on a batch."""
        assert deterministic
        self.policy.set_training_mode(False)
        tensors, _ = self.policy.obs_to_tensor(observation)
        actions = self.policy.noise_free_actions(tensors).cpu().numpy()
        return self.policy.unscale_action(actions.reshape(-1, *self.policy.action_space.shape)), state
