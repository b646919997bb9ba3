"""The policy whose actions are the end of a denoising chain."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_lql.common.acceleration import compiled
from sb3_lql.diffusion.exportable import ExportableDiffusion, split_draws
from sb3_lql.diffusion.process import ActionProcess
from sb3_lql.engine.policy import ChainPolicy, best_of_samples
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.denoisers import ConditionedNetwork, Denoiser
from sb3_lql.networks.distributional import GaussianCritic
from sb3_lql.networks.layers import hidden_layers

#: Keeps the quantile of a fixed start finite.
LARGEST_START = 0.999


def denoising_chain(
    process: ActionProcess, denoiser: ConditionedNetwork, features: th.Tensor, start: th.Tensor, noise: th.Tensor | None
) -> th.Tensor:
    """A chain per row of ``features``, of shape (batch, features_dim)."""
    actions: th.Tensor = process(denoiser.given(features), start, noise)
    return actions


#: Compiled once for all models of an architecture, and all batches.
compiled_denoising_chain = compiled(denoising_chain, batch_dims=dict(features=0, start=0, noise=1), result_dims=(0,))


class DiffusionPolicy(ChainPolicy):
    """
    An action is the end of a denoising chain; critics choose among several.

    The denoiser works on the critic's features, which the critic alone trains. Arguments that are not listed here are
    those of :class:`~sb3_lql.engine.policy.ChainPolicy`.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param process: the noise schedule and the chain
    :param start_scale: standard deviation of ``x_T``
    :param fixed_noise: let deterministic actions keep the chain's noise, drawn once for all; without it they have none
    :param acts_with_target: act by the denoiser's running average
    :param critic_class: class of the critic
    :param denoiser_class: class of the denoiser, made of (features_dim, action_dim, n_steps, net_arch, activation_fn)
    :param denoiser_kwargs: keyword arguments of the denoiser, ``activation_fn`` among them if it is another
    :param initialize: is applied to critic and denoiser once they are made, for other initial weights
    :param initial_temperature: ``alpha`` at first, if it is learned
    :param running: averages that the algorithm keeps, by name, with what they are at first
    :param net_arch: sizes of the hidden layers, [256, 256, 256] by default; ``dict(qf=[...], pi=[...])`` for those of
        the critic and of the denoiser
    """

    #: Not at the price of small batches: a denoising chain does not let the last bit grow.
    batch_invariant = False
    #: Predicts the noise in an action.
    denoiser: ConditionedNetwork
    #: Its running average.
    denoiser_target: ConditionedNetwork
    #: ``log alpha``, shape (), if it is learned.
    log_temperature: nn.Parameter

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        process: ActionProcess,
        start_scale: float = 1.0,
        fixed_noise: bool = False,
        acts_with_target: bool = False,
        critic_class: type[EnsembleCritic] = EnsembleCritic,
        denoiser_class: Callable[..., ConditionedNetwork] = Denoiser,
        denoiser_kwargs: dict[str, Any] | None = None,
        initialize: Callable[[nn.Module], None] | None = None,
        initial_temperature: float | None = None,
        running: dict[str, float] | None = None,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, net_arch=net_arch, **kwargs)
        self.actor_arch = hidden_layers(net_arch, "pi")
        self.process = process
        self.start_scale = start_scale
        self.fixed_noise = fixed_noise
        self.acts_with_target = acts_with_target
        self.critic_class = critic_class
        self.denoiser_class = denoiser_class
        self.denoiser_kwargs = denoiser_kwargs or {}
        self.initialize = initialize
        self.initial_temperature = initial_temperature
        self.running = running or {}
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.denoiser = self.denoiser_class(
            self.critic.features_extractor.features_dim,
            self.action_dim,
            self.process.n_steps,
            self.actor_arch,
            **dict(activation_fn=self.activation_fn) | self.denoiser_kwargs,
        ).to(self.device)
        if self.initialize is not None:
            self.critic.apply(self.initialize)
            self.denoiser.apply(self.initialize)
            self.critic_target.load_state_dict(self.critic.state_dict())
        self.add_target("denoiser", copy.deepcopy(self.denoiser))
        self.add_optimizer("actor", self.denoiser.parameters(), lr_schedule(1))
        for name, value in self.running.items():
            self.register_buffer(name, th.tensor(value))
        if self.initial_temperature is not None:
            self.log_temperature = nn.Parameter(th.tensor(math.log(self.initial_temperature)))
            self.add_optimizer("temperature", [self.log_temperature], lr_schedule(1))

    @property
    def chain_length(self) -> int:
        """Denoising steps, one after the other."""
        return self.process.n_steps

    @property
    def acting_denoiser(self) -> ConditionedNetwork:
        """The one whose chains are the policy: the online one, or its average."""
        return self.denoiser_target if self.acts_with_target else self.denoiser

    def draw(self, features: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        :param features: shape (batch, features_dim)
        :return: ``x_T``, shape (batch, action_dim), and, if there are steps with noise, ``z``, shape (n_noises, batch,
            action_dim)
        """
        shape, n_noises = (len(features), self.action_dim), self.process.n_noises
        start = self.start_scale * th.randn(shape, device=features.device)
        return (start, th.randn((n_noises, *shape), device=features.device)) if n_noises else (start,)

    @th.no_grad()
    def run(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: as :meth:`draw` returns them
        :return: where the chains end, in [-1, 1], shape (batch, action_dim)
        """
        return self.denoise(self.acting_denoiser, features, *draws)

    def fixed_draws(self) -> th.Tensor:
        """
        :return: ``x_T`` and, if that is fixed, ``z`` of deterministic actions, side by side, shape (n_action_samples,
            (1 + n_noises) * action_dim) or (n_action_samples, action_dim)
        """
        points = super().fixed_draws().clamp(-LARGEST_START, LARGEST_START)
        starts = self.start_scale * math.sqrt(2.0) * points.erfinv()
        if not self.fixed_noise:
            return starts
        generator = th.Generator().manual_seed(0)
        return th.cat(
            [starts, th.randn(len(starts), self.process.n_noises * self.action_dim, generator=generator)], dim=1
        )

    @th.no_grad()
    def run_deterministic(self, features: th.Tensor, draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: as of :meth:`fixed_draws`, a row for each of the features
        :return: where the chains end, in [-1, 1], shape (batch, action_dim)
        """
        return denoising_chain(self.process, self.acting_denoiser, features, *split_draws(draws, self.action_dim))

    def draw_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """
        :return: shapes of what :meth:`draw` returns, in its order, by name; the size of the batch is "batch"
        """
        n_noises = self.process.n_noises
        noise: dict[str, tuple[int | str, ...]] = {"noise": (n_noises, "batch", self.action_dim)} if n_noises else {}
        return {"initial_actions": ("batch", self.action_dim)} | noise

    def exportable(self, dtype: th.dtype) -> ExportableDiffusion:
        """
        :param dtype: in which chains are to be computed
        :return: the chains, for export
        """
        return ExportableDiffusion(self.process, self.acting_denoiser, self.critic, dtype)

    def denoise(
        self, denoiser: ConditionedNetwork, features: th.Tensor, start: th.Tensor, noise: th.Tensor | None = None
    ) -> th.Tensor:
        """
        :param denoiser: the online one, or its average
        :param features: shape (batch, features_dim)
        :param start: ``x_T``, shape (batch, action_dim)
        :param noise: ``z``, shape (n_noises, batch, action_dim); ``None`` for chains without noise
        :return: where the chains end, in [-1, 1], shape (batch, action_dim)
        """
        chain = compiled_denoising_chain if self.compiles else denoising_chain
        return chain(self.process, denoiser, features, start, noise)

    def statistics(self) -> Iterator[th.Tensor]:
        """
        :return: as of :class:`~sb3_lql.engine.policy.ChainPolicy`, and the algorithm's own
        """
        yield from (*super().statistics(), *map(self.get_buffer, self.running))
        if isinstance(self.critic, GaussianCritic):
            yield self.critic.typical_std

    @th.no_grad()
    def best_actions(
        self,
        denoiser: ConditionedNetwork,
        features: th.Tensor,
        n_samples: int | None = None,
        critic: EnsembleCritic | None = None,
        critic_features: th.Tensor | None = None,
    ) -> th.Tensor:
        """
        The best of several chains for each row.

        :param denoiser: the online one, or its average
        :param features: shape (batch, features_dim)
        :param n_samples: number of chains; ``n_action_samples`` by default
        :param critic: whose smallest Q chooses; the online one by default
        :param critic_features: what another critic makes of the same observations, shape (batch, features_dim)
        :return: shape (batch, action_dim), without gradient
        """
        n, critic = n_samples or self.n_action_samples, critic or self.critic
        rows = features.repeat_interleave(n, dim=0)
        judged = rows if critic_features is None else critic_features.repeat_interleave(n, dim=0)
        actions = self.sample(denoiser, rows)
        return best_of_samples(actions, n, lambda: critic.lowest_q_values(judged, actions))

    @th.no_grad()
    def sample(self, denoiser: ConditionedNetwork, features: th.Tensor) -> th.Tensor:
        """
        A chain for each row.

        :param denoiser: the online one, or its average
        :param features: shape (batch, features_dim)
        :return: shape (batch, action_dim), without gradient
        """
        return self.denoise(denoiser, features, *self.draw(features))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(
            process=self.process,
            start_scale=self.start_scale,
            fixed_noise=self.fixed_noise,
            acts_with_target=self.acts_with_target,
            critic_class=self.critic_class,
            denoiser_class=self.denoiser_class,
            denoiser_kwargs=self.denoiser_kwargs,
            initialize=self.initialize,
            initial_temperature=self.initial_temperature,
            running=self.running,
            net_arch=dict(qf=self.net_arch, pi=self.actor_arch),
        )


MlpPolicy = DiffusionPolicy


class CnnPolicy(DiffusionPolicy):
    """:class:`DiffusionPolicy` for images."""

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class = NatureCNN


class MultiInputPolicy(DiffusionPolicy):
    """:class:`DiffusionPolicy` for dictionary observations."""

    #: What ``features_extractor_class=None`` stands for: a CNN for each image, and the rest as it is.
    default_features_extractor_class = CombinedExtractor
