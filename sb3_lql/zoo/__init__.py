"""The RL Zoo with LQL and NC-LQL registered."""

try:
    import rl_zoo3  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}: the sb3-lql command needs pip install "sb3_lql[zoo]"') from error

from sb3_lql.zoo.registry import hyperparams_file, register

__all__ = ["hyperparams_file", "register"]
