"""Q-networks that predict the distribution of returns."""

from typing import Any, ClassVar

import torch as th
from torch.nn import functional as F

from sb3_lql.networks.critics import EnsembleCritic


class GaussianCritic(EnsembleCritic):
    """
    Returns as Gaussians: each network predicts their mean, which is Q(s, a), and their standard deviation. Arguments
    are those of :class:`~sb3_lql.networks.critics.EnsembleCritic`.
    """

    #: Mean and standard deviation, the latter before its softplus.
    n_outputs: ClassVar[int] = 2

    #: Running mean of each network's standard deviation, shape (n_critics, 1, 1); -1 before the first one.
    typical_std: th.Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("typical_std", th.full((self.n_critics, 1, 1), -1.0))

    def q_values(
        self, features: th.Tensor, actions: th.Tensor, noise_level: th.Tensor | int | None = None
    ) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :param noise_level: as of :class:`~sb3_lql.networks.critics.EnsembleCritic`
        :return: means, shape (n_critics, batch, 1)
        """
        return super().q_values(features, actions, noise_level)[..., :1]

    def distributions(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :return: means and standard deviations, shape (n_critics, batch, 2)
        """
        mean, raw = super().q_values(features, actions).chunk(2, dim=2)
        return th.cat([mean, F.softplus(raw)], dim=2)
