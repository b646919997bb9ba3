"""Denoising chains by operations that exporters know."""

import copy

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_lql.diffusion.process import ActionProcess
from sb3_lql.engine.policy import ExportableChain
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.denoisers import ConditionedNetwork


class ExportableDiffusion(ExportableChain):
    """
    The chains of a :class:`~sb3_lql.diffusion.policies.DiffusionPolicy`, on the CPU.

    :param process: the chain and its schedule, which is copied
    :param denoiser: the one that acts, which is copied
    :param critic: the critic, which is copied
    :param dtype: in which chains are computed; features are extracted in float32
    """

    def __init__(
        self, process: ActionProcess, denoiser: ConditionedNetwork, critic: EnsembleCritic, dtype: th.dtype
    ) -> None:
        super().__init__(critic, dtype)
        self.action_dim = get_action_dim(critic.action_space)
        self.process = copy.deepcopy(process).cpu().to(dtype)
        self.denoiser = copy.deepcopy(denoiser).cpu().to(dtype)

    def forward(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: those of a chain, or the fixed ones side by side
        :return: where the chains end, shape (batch, action_dim)
        """
        start, noise = draws if len(draws) == 2 else split_draws(draws[0], self.action_dim)
        actions: th.Tensor = self.process(self.denoiser.given(features), start, noise)
        return actions


def split_draws(draws: th.Tensor, action_dim: int) -> tuple[th.Tensor, th.Tensor | None]:
    """
    :param draws: ``x_T`` and ``z`` side by side, shape (batch, (1 + n_noises) * action_dim)
    :param action_dim: number of action coordinates
    :return: ``x_T``, shape (batch, action_dim), and ``z``, shape (n_noises, batch, action_dim), or ``None`` if there is
        none
    """
    start, *noise = th.split(draws, action_dim, dim=1)
    return start, th.stack(noise) if noise else None
