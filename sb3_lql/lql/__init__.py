"""Langevin Q-Learning."""

from sb3_lql.langevin.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.lql.lql import LQL

__all__ = ["LQL", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
