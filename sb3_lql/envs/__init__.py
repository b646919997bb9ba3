"""The paper's environments, registered with gymnasium by ``import sb3_lql``."""

import gymnasium as gym

from sb3_lql.envs.multimodal_bandit import MultimodalBandit

gym.register(id="MultimodalBandit-v0", entry_point="sb3_lql.envs.multimodal_bandit:MultimodalBandit")

__all__ = ["MultimodalBandit"]
