"""LQL and NC-LQL: actor-free reinforcement learning by Langevin dynamics, for Stable-Baselines3.

From "Direct Soft-Policy Sampling via Langevin Dynamics", https://arxiv.org/abs/2602.07873
"""

import sys

import sb3_lql.envs  # noqa: F401 - registers the environments
from sb3_lql import common
from sb3_lql.exporting.writer import export
from sb3_lql.langevin import policies, sampler
from sb3_lql.lql import LQL
from sb3_lql.nclql import NCLQL
from sb3_lql.networks import activations, critics
from sb3_lql.saving import callbacks, checkpoint, safe
from sb3_lql.version import __version__

__all__ = ["LQL", "NCLQL", "__version__", "export"]

# Modules that were in `common` before: models that were saved then name their classes so, and users' code imports them
for _name, _module in {
    "activations": activations,
    "callbacks": callbacks,
    "checkpoint": checkpoint,
    "critics": critics,
    "langevin": sampler,
    "policies": policies,
    "safe": safe,
}.items():
    sys.modules[f"sb3_lql.common.{_name}"] = _module
    setattr(common, _name, _module)
del _name, _module
