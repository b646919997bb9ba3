"""Noise-Conditioned Langevin Q-Learning."""

from sb3_lql.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.nclql.nclql import NCLQL

__all__ = ["NCLQL", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
