"""Arguments: what ``help`` says of them, and which of the policy's go with others."""

import inspect
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_lql import baselines
from sb3_lql.baselines import DIPO, QSM, QVPO
from sb3_lql.baselines.compared import ComparedDIPO
from sb3_lql.networks.denoisers import Score
from tests.baselines.checks import TINY


@pytest.mark.parametrize("name", baselines.__all__)
def test_help_describes_every_argument(name: str) -> None:
    algorithm: Any = getattr(baselines, name)
    assert not [each for each in inspect.signature(algorithm).parameters if f":param {each}:" not in algorithm.__doc__]


class OwnDenoiser(Score):
    """A user's, which takes no settings."""

    def __init__(
        self, features_dim: int, action_dim: int, n_steps: int, net_arch: list[int], activation_fn: type[nn.Module]
    ) -> None:
        super().__init__(features_dim, action_dim, n_steps, net_arch, activation_fn)


@pytest.mark.parametrize("algorithm", [DIPO, QVPO, QSM, ComparedDIPO])
def test_settings_of_a_class_do_not_outlive_it(algorithm: Any) -> None:
    """The authors' epsilon is Adam's, and what their denoiser takes is theirs."""
    classes = dict(optimizer_class=th.optim.SGD, denoiser_class=OwnDenoiser)
    model = algorithm("MlpPolicy", "Pendulum-v1", **TINY | dict(policy_kwargs=dict(net_arch=[16]) | classes)).learn(22)
    assert {type(optimizer) for optimizer in model.policy.optimizers.values()} == {th.optim.SGD}
    assert type(model.policy.denoiser) is OwnDenoiser


def test_settings_that_the_user_gives_go_with_the_class() -> None:
    classes = dict(optimizer_class=th.optim.SGD, optimizer_kwargs=dict(momentum=0.5))
    model = DIPO("MlpPolicy", "Pendulum-v1", **TINY | dict(policy_kwargs=classes))
    assert model.policy.optimizer.defaults["momentum"] == 0.5
    kept: Any = DIPO("MlpPolicy", "Pendulum-v1", **TINY).policy.optimizer
    assert kept.defaults["eps"] == 1e-5
