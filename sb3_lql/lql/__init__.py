"""Langevin Q-Learning."""

from sb3_lql.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.lql.lql import LQL

__all__ = ["LQL", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
