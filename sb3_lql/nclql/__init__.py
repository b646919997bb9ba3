"""Noise-Conditioned Langevin Q-Learning."""

from sb3_lql.langevin.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.nclql.nclql import NCLQL

__all__ = ["NCLQL", "CnnPolicy", "MlpPolicy", "MultiInputPolicy"]
