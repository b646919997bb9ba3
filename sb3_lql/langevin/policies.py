"""The actor-free policy: a critic, its target and a Langevin sampler."""

from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_lql.common.compatibility import check_extractor
from sb3_lql.common.scaling import scale_from_unit, scale_to_unit
from sb3_lql.common.validation import check_count, check_finite, check_observation
from sb3_lql.langevin.runner import ChainRunner
from sb3_lql.langevin.sampler import LangevinChain, LangevinSampler
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.matrices import in_blocks


class LangevinPolicy(BasePolicy):
    """
    Policy without an actor: an action is the end of a Langevin chain on the critic.

    The critic is noise-conditioned when the sampler is: one class serves LQL and NC-LQL.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param sampler: the Langevin chain and its schedule
    :param net_arch: sizes of the critic's hidden layers, [256, 256, 256] by default; of
        ``dict(qf=[...], pi=[...])`` only ``qf`` is used
    :param activation_fn: activation function
    :param features_extractor_class: features extractor; that of the class by default
    :param features_extractor_kwargs: keyword arguments of the features extractor
    :param normalize_images: divide images by 255
    :param optimizer_class: optimiser of the critics
    :param optimizer_kwargs: its keyword arguments, without the learning rate
    :param n_critics: number of critics
    :param n_action_samples: chains per action when acting; the action of the highest minimum critic is taken
    :param bfloat16_chain: multiply the chain's hidden layers in bfloat16
    :raises ValueError: for a ``net_arch`` or a count that makes no network, or an extractor of other observations
    """

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor

    action_space: spaces.Box
    #: What chains run on, and what learns.
    critic: EnsembleCritic
    #: What the targets of learning come from: follows :attr:`critic`.
    critic_target: EnsembleCritic

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        sampler: LangevinSampler,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Mish,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        n_action_samples: int = 1,
        bfloat16_chain: bool = False,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class or self.default_features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        check_extractor(self.features_extractor_class, observation_space, self.features_extractor_kwargs)
        if isinstance(activation_fn, nn.Module):
            raise TypeError(f"activation_fn={activation_fn!r} is a module: pass its class, {type(activation_fn)}.")
        self.net_arch = _critic_arch(net_arch)
        self.activation_fn = activation_fn
        self.n_critics = check_count("n_critics", n_critics)
        self.n_action_samples = check_count("n_action_samples", n_action_samples)
        self.sampler = sampler

        self.critic = self.make_critic()
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)
        self.chains = ChainRunner(sampler, self.critic, bfloat16_chain)
        self.optimizer_kwargs = _with_fused_step(self.optimizer_class, self.optimizer_kwargs, self.critic)
        self.optimizer = self.optimizer_class(
            self.critic.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    @property
    def action_dim(self) -> int:
        """Number of action coordinates."""
        return get_action_dim(self.action_space)

    def make_critic(self) -> EnsembleCritic:
        """
        :return: a new critic with a features extractor of its own
        """
        net_args = dict(
            observation_space=self.observation_space,
            action_space=self.action_space,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            normalize_images=self.normalize_images,
            n_critics=self.n_critics,
            n_noise_levels=self.sampler.n_levels if self.sampler.noise_conditioned else None,
        )
        return EnsembleCritic(**self._update_features_extractor(net_args)).to(self.device)

    def run_chain(
        self, features: th.Tensor, initial_actions: th.Tensor | None = None, noise: th.Tensor | None = None
    ) -> LangevinChain:
        """
        One Langevin chain per row of ``features``, with the online critics.

        :param features: the critic's features, shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim); uniform on [-1, 1] if ``None``
        :param noise: ``z``, shape (chain_length, batch, action_dim); standard normal if ``None``
        :return: actions in [-1, 1] of shape (batch, action_dim), and the norms of the scores
        """
        return self.chains.run(features, *self.chains.draw(features, initial_actions, noise))

    def _act(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None) -> th.Tensor:
        """The best of the ``n_action_samples`` chains for each observation, shape (batch, action_dim)."""
        actions = self.chains.actions(features, initial_actions, noise)
        if self.n_action_samples == 1:
            return actions
        return self._best_of_samples(actions, self._lowest_q_values(features, actions))

    @th.no_grad()
    def sample_actions(
        self,
        obs: PyTorchObs,
        *,
        initial_actions: th.Tensor | None = None,
        noise: th.Tensor | None = None,
    ) -> th.Tensor:
        """
        Draw one action per observation. With both draws given, a chain can be replayed exactly.

        :param obs: observations
        :param initial_actions: ``a_0``, shape (batch, action_dim); uniform on [-1, 1] if ``None``
        :param noise: ``z``, shape (n_levels * n_steps, batch, action_dim) in the order of the chain; standard normal
            if ``None``
        :return: actions in [-1, 1], shape (batch, action_dim)
        :raises ValueError: if a given draw has another shape
        """
        features = self.critic.features(obs)
        shape = (len(features), self.action_dim)
        _check_shape("initial_actions", initial_actions, shape)
        _check_shape("noise", noise, (self.sampler.chain_length, *shape))
        return self.run_chain(features, initial_actions, noise).actions

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: observations
        :param deterministic: noise-free chains from fixed starts
        :return: actions in [-1, 1], shape (batch, action_dim)
        """
        return self._predict(obs, deterministic=deterministic)

    @th.no_grad()
    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        if deterministic:
            return self.noise_free_actions(observation)
        features = self.critic.features(observation).repeat_interleave(self.n_action_samples, dim=0)
        return self._act(features, *self.chains.draw(features))

    @th.no_grad()
    def noise_free_actions(self, obs: PyTorchObs) -> th.Tensor:
        """
        Where noise-free chains from fixed starts end, computed in float64 wherever the critic can: along a chain of
        normalised scores, the last bit of float32 can grow into another action.

        For the same reason, not even the last bit of an action depends on what shares its batch.

        :param obs: observations
        :return: actions in [-1, 1], shape (batch, action_dim), float32
        """
        features = self._features_one_by_one(obs).to(self.critic.exact_dtype)
        starts = _fixed_starts(self.n_action_samples, self.action_dim).to(features).repeat(len(features), 1)
        features = features.repeat_interleave(self.n_action_samples, dim=0)
        actions = in_blocks(partial(self.chains.actions, noise=None), features, starts)
        if self.n_action_samples > 1:
            actions = self._best_of_samples(actions, in_blocks(self._lowest_q_values, features, actions))
        return actions.float()

    def _features_one_by_one(self, obs: PyTorchObs) -> th.Tensor:
        """The features, shape (batch, features_dim), each extracted by itself unless that is mere copying."""
        extractor = self.critic.features_extractor
        copies = type(extractor) in (FlattenExtractor, CombinedExtractor) and not list(extractor.parameters())
        rows = [obs] if copies else _rows(obs) or [obs]
        return th.cat([self.critic.features(row) for row in rows])

    def _lowest_q_values(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """The minimum over the critics, shape (batch, 1)."""
        return self.critic.q_values(features, actions).amin(dim=0)

    def _best_of_samples(self, actions: th.Tensor, q_values: th.Tensor) -> th.Tensor:
        """
        :param actions: shape (batch * n_action_samples, action_dim)
        :param q_values: the lowest of each action, shape (batch * n_action_samples, 1)
        :return: for each observation the action of the highest, shape (batch, action_dim)
        """
        best = q_values.view(-1, self.n_action_samples).argmax(dim=1)
        candidates = actions.view(-1, self.n_action_samples, self.action_dim)
        return candidates[th.arange(len(best), device=best.device), best]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        SB3's ``predict``.

        :param observation: one or a batch
        :param state: not used
        :param episode_start: not used
        :param deterministic: noise-free chains from fixed starts
        :return: actions within the space's bounds, and ``state``
        :raises ValueError: if an observation is not finite or huge, or an action is not finite
        """
        action, state = super().predict(observation, state, episode_start, deterministic)
        remedy = "The critic overflows: its weights or the observation are too large."
        check_finite("action", action, remedy, float(np.finfo(action.dtype).max))
        return action, state

    def obs_to_tensor(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[PyTorchObs, bool]:
        """
        SB3's ``obs_to_tensor``.

        :param observation: one or a batch
        :return: the batch, and whether it was one
        :raises ValueError: if it is not finite, or huge
        """
        remedy = "No action follows from that: look at where observations come from."
        return super().obs_to_tensor(check_observation(observation, remedy))

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        """
        :param action: actions within the space's bounds, shape ``(..., *action_shape)``
        :return: actions in [-1, 1], float32
        """
        return scale_to_unit(action, self.action_space)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """
        :param scaled_action: actions in [-1, 1], shape ``(..., *action_shape)``
        :return: actions within the space's bounds, of its dtype
        """
        return scale_from_unit(scaled_action, self.action_space)

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the critic in training or evaluation mode; the target always stays in evaluation mode.

        :param mode: True for training mode
        """
        self.critic.set_training_mode(mode)
        self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(
            lr_schedule=self._dummy_schedule,  # not needed for loading the policy alone
            sampler=self.sampler,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            n_critics=self.n_critics,
            n_action_samples=self.n_action_samples,
            bfloat16_chain=self.chains.bfloat16,
        )


MlpPolicy = LangevinPolicy


class CnnPolicy(LangevinPolicy):
    """:class:`LangevinPolicy` for images."""

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class = NatureCNN


class MultiInputPolicy(LangevinPolicy):
    """:class:`LangevinPolicy` for dictionary observations."""

    #: What ``features_extractor_class=None`` stands for: a CNN for each image, and the rest as it is.
    default_features_extractor_class = CombinedExtractor


@lru_cache
def _fixed_starts(n_starts: int, action_dim: int) -> th.Tensor:
    """Well spread points of [-1, 1]^d, of which the first is the centre, as the second of a Sobol sequence is."""
    if n_starts == 1:
        return th.zeros(1, action_dim)
    sobol = th.quasirandom.SobolEngine(action_dim)  # type: ignore[no-untyped-call]
    points: th.Tensor = 2.0 * sobol.draw(n_starts + 1)[1:] - 1.0
    return points


def _check_shape(name: str, tensor: th.Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: pass one of shape {shape}.")


def _critic_arch(net_arch: list[int] | dict[str, list[int]] | None) -> list[int]:
    """The critic's hidden layers from a ``net_arch`` as SB3's off-policy algorithms take it."""
    if net_arch is None:
        return [256, 256, 256]
    layers = net_arch.get("qf") if isinstance(net_arch, dict) else net_arch
    if not isinstance(layers, (list, tuple)):
        raise ValueError(
            f"net_arch={net_arch!r} describes no critic: pass a list of layer sizes, or dict(qf=[...]) ('pi' is "
            "accepted and ignored, since there is no actor)."
        )
    return [check_count("net_arch", size) for size in layers]


def _with_fused_step(
    optimizer_class: type[th.optim.Optimizer], kwargs: dict[str, Any], network: nn.Module
) -> dict[str, Any]:
    """``kwargs`` with Adam's fused implementation chosen, unless the user chose one: it can skip a step on its own."""
    chosen = kwargs.keys() & {"fused", "foreach", "differentiable"}
    if optimizer_class not in (th.optim.Adam, th.optim.AdamW) or chosen:
        return kwargs
    # There is none for complex parameters
    return kwargs | dict(fused=True) if all(map(th.is_floating_point, network.parameters())) else kwargs


def _rows(observation: PyTorchObs) -> list[PyTorchObs]:
    """The observations of a batch, each as a batch of one, in memory of its own: sums depend on where it begins."""
    if isinstance(observation, dict):
        batch_size = len(next(iter(observation.values())))
        return [{key: value[row : row + 1].clone() for key, value in observation.items()} for row in range(batch_size)]
    return [observation[row : row + 1].clone() for row in range(len(observation))]
