"""LQL and NC-LQL: actor-free reinforcement learning by Langevin dynamics, for Stable-Baselines3.

From "Direct Soft-Policy Sampling via Langevin Dynamics", https://arxiv.org/abs/2602.07873
"""

import sb3_lql.envs  # noqa: F401 - registers the environments
from sb3_lql.common.exporting import export
from sb3_lql.lql import LQL
from sb3_lql.nclql import NCLQL

__version__ = "0.1.0"

__all__ = ["LQL", "NCLQL", "__version__", "export"]
