"""Denoising chains by operations that exporters know."""

import copy
from functools import partial

import torch as th

from sb3_lql.diffusion.process import ActionProcess
from sb3_lql.engine.policy import ExportableChain
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.denoisers import Denoiser


class ExportableDiffusion(ExportableChain):
    """
    The chains of a :class:`~sb3_lql.diffusion.policies.DiffusionPolicy`, on the CPU.

    :param process: the chain and its schedule, which is copied
    :param denoiser: the one that acts, which is copied
    :param critic: the critic, which is copied
    :param dtype: in which chains are computed; features are extracted in float32
    """

    def __init__(self, process: ActionProcess, denoiser: Denoiser, critic: EnsembleCritic, dtype: th.dtype) -> None:
        super().__init__(critic, dtype)
        self.process = copy.deepcopy(process).cpu().to(dtype)
        self.denoiser = copy.deepcopy(denoiser).cpu().to(dtype)

    def forward(self, features: th.Tensor, start: th.Tensor, noise: th.Tensor | None = None) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param start: ``x_T``, shape (batch, action_dim)
        :param noise: ``z``, shape (n_noises, batch, action_dim); ``None`` for chains without noise
        :return: where the chains end, shape (batch, action_dim)
        """
        actions: th.Tensor = self.process(partial(self.denoiser, features), start, noise)
        return actions
