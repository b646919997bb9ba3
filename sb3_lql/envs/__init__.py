"""Small environments with several modes, registered with gymnasium by ``import sb3_lql``."""

import gymnasium as gym

from sb3_lql.envs.multi_goal import MultiGoal
from sb3_lql.envs.multimodal_bandit import MultimodalBandit

gym.register(id="MultimodalBandit-v0", entry_point="sb3_lql.envs.multimodal_bandit:MultimodalBandit")
gym.register(id="MultiGoal-v0", entry_point="sb3_lql.envs.multi_goal:MultiGoal", max_episode_steps=30)

__all__ = ["MultiGoal", "MultimodalBandit"]
