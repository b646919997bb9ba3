"""The classes that a file may name, by their names: no other is ever looked for."""

from typing import Any

import torch as th
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from torch import nn

from sb3_lql.common.buffer_layout import REPLAY_BUFFERS

# fmt: off
ACTIVATIONS: tuple[type, ...] = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh,
    nn.Tanhshrink,
)
OPTIMIZERS: tuple[type, ...] = (
    th.optim.ASGD, th.optim.Adadelta, th.optim.Adagrad, th.optim.Adam, th.optim.AdamW, th.optim.Adamax, th.optim.NAdam,
    th.optim.RAdam, th.optim.RMSprop, th.optim.SGD,
)
# fmt: on
#: The classes that an argument may name.
CLASSES: dict[str, dict[str, type]] = {
    argument: {known.__name__: known for known in classes}
    for argument, classes in {
        "activation_fn": ACTIVATIONS,
        "optimizer_class": OPTIMIZERS,
        "features_extractor_class": (CombinedExtractor, FlattenExtractor, NatureCNN),
        "replay_buffer_class": REPLAY_BUFFERS,
    }.items()
}


class SimpleLinearSchedule:
    """
    RL Zoo's schedule ``lin_...``, to the last bit and without RL Zoo.

    :param initial_value: the value at the beginning, from where it falls to zero
    """

    def __init__(self, initial_value: float) -> None:
        self.initial_value = initial_value

    def __call__(self, progress_remaining: float) -> float:
        """
        :param progress_remaining: from 1 to 0
        :return: the value then
        """
        return progress_remaining * self.initial_value


#: Schedules and noises by name, and the arguments they are made of, by the attributes that hold them.
SCHEDULES: dict[str, tuple[type, dict[str, str]]] = {
    "ConstantSchedule": (ConstantSchedule, {"val": "val"}),
    "LinearSchedule": (LinearSchedule, {"start": "start", "end": "end", "end_fraction": "end_fraction"}),
    "SimpleLinearSchedule": (SimpleLinearSchedule, {"initial_value": "initial_value"}),
}
_NORMAL = {"mean": "_mu", "sigma": "_sigma"}
_ORNSTEIN_UHLENBECK = _NORMAL | {"theta": "_theta", "dt": "_dt", "initial_noise": "initial_noise"}
NOISES: dict[str, tuple[type, dict[str, str]]] = {
    "NormalActionNoise": (NormalActionNoise, _NORMAL),
    "OrnsteinUhlenbeckActionNoise": (OrnsteinUhlenbeckActionNoise, _ORNSTEIN_UHLENBECK),
}


def is_simple_linear(value: Any) -> bool:
    """Whether it is RL Zoo's schedule, by what it does, since RL Zoo may not be there to ask."""
    if type(value).__name__ != "SimpleLinearSchedule" or list(vars(value)) != ["initial_value"]:
        return False
    same = SimpleLinearSchedule(value.initial_value)
    return all(value(progress) == same(progress) for progress in (1.0, 0.7, 0.3, 0.0))
