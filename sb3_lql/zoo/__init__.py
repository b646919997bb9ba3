"""The RL Zoo with LQL and NC-LQL registered."""

from sb3_lql.zoo.registry import hyperparams_file, register

__all__ = ["hyperparams_file", "register"]
