"""The policy of every algorithm: draws, a chain that turns them into actions, and critics that judge these."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_lql.common.acceleration import GraphedFunction
from sb3_lql.common.compatibility import check_activation, check_extractor, check_optimizer
from sb3_lql.common.scaling import scale_from_unit, scale_to_unit
from sb3_lql.common.validation import check_count, check_finite, check_flag, check_observation
from sb3_lql.engine.optimization import with_fused_step
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.layers import hidden_layers
from sb3_lql.networks.matmul import batch_invariant


class ExportableChain(nn.Module):
    """
    The chains of a policy by operations that exporters know, on the CPU. Called with features and draws, or with
    features and where chains without noise start, it returns where the chains end.

    :param critic: what extracts features and chooses among actions, which is copied
    :param dtype: in which it compares actions; features are extracted in float32
    """

    #: Whether TorchScript can trace it.
    traceable = True

    def __init__(self, critic: EnsembleCritic, dtype: th.dtype) -> None:
        super().__init__()
        self.critic = copy.deepcopy(critic).cpu()
        self.critic.layers.to(dtype)
        self.critic.activations.to(dtype)


class ChainPolicy(BasePolicy):
    """
    An action is what a chain makes of random draws. Critics choose among several.

    A subclass defines the draws (:meth:`draw`), the chain on them (:meth:`run`, and :meth:`run_deterministic` for
    deterministic actions), and which networks there are besides the critic. Everything that is learned belongs here:
    targets are made known by :meth:`add_target`, and optimisers by :meth:`add_optimizer`.

    :param observation_space: observation space
    :param action_space: action space
    :param net_arch: sizes of the critic's hidden layers, [256, 256, 256] by default; of
        ``dict(qf=[...], pi=[...])`` only ``qf`` is the critic's
    :param activation_fn: activation function
    :param features_extractor_class: features extractor; that of the class by default
    :param features_extractor_kwargs: keyword arguments of the features extractor
    :param normalize_images: divide images by 255
    :param optimizer_class: class of the optimisers
    :param optimizer_kwargs: its keyword arguments, without the learning rate
    :param n_critics: number of critics
    :param n_action_samples: actions per observation when acting; the one of the highest minimum critic is taken
    :raises ValueError: for a ``net_arch`` or a count that makes no network, an extractor of other observations, or
        ``LBFGS``
    :raises TypeError: for values of the wrong type
    """

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    #: Whether deterministic actions are bitwise independent of the rest of the batch; slower, as rows are computed in
    #: small blocks.
    batch_invariant: ClassVar[bool] = True
    #: Class of the critics.
    critic_class: type[EnsembleCritic] = EnsembleCritic

    action_space: spaces.Box
    #: Q-networks: what judges actions, and what learns by TD.
    critic: EnsembleCritic
    #: The critic that TD targets come from.
    critic_target: EnsembleCritic

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Mish,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        n_action_samples: int = 1,
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
        if not callable(self.features_extractor_class):
            raise TypeError(f"features_extractor_class={features_extractor_class!r} is no class: pass one, or None.")
        check_extractor(self.features_extractor_class, observation_space, self.features_extractor_kwargs)
        check_flag("normalize_images", normalize_images)
        check_activation(activation_fn)
        check_optimizer(optimizer_class, optimizer_kwargs)
        self.net_arch = hidden_layers(net_arch, "qf")
        self.activation_fn = activation_fn
        self.n_critics = check_count("n_critics", n_critics)
        self.n_action_samples = check_count("n_action_samples", n_action_samples)
        self._optimizer_names: list[str] = []
        self._target_names: list[str] = []
        #: Whether chains may be compiled, and whether actions may be replayed as CUDA graphs.
        self.compiles, self.use_cuda_graphs = False, False
        self._graphed_run = GraphedFunction(self.run, self._state, self.constants)
        self._graphed_run_deterministic = GraphedFunction(self.run_deterministic, self._state, self.constants)

    def _build(self, lr_schedule: Schedule) -> None:
        """Make the networks and their optimisers. A subclass calls it when it is ready, and adds its own."""
        self.critic = self.make_critic()
        self.add_target("critic", self.make_critic())
        self.add_optimizer("critic", self.critic.parameters(), lr_schedule(1))

    # What a policy is made of

    def make_critic(self) -> EnsembleCritic:
        """
        :return: a new critic with a features extractor of its own
        """
        return self.critic_class(**self._update_features_extractor(self._critic_arguments())).to(self.device)

    def _critic_arguments(self) -> dict[str, Any]:
        return dict(
            observation_space=self.observation_space,
            action_space=self.action_space,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            normalize_images=self.normalize_images,
            n_critics=self.n_critics,
        )

    def add_target(self, name: str, target: nn.Module) -> None:
        """
        Let a target network follow a network: it starts with the same weights, and each target update moves it by
        ``tau``.

        :param name: attribute of the network; ``<name>_target`` becomes that of the target
        :param target: another network of the same kind
        """
        target.load_state_dict(getattr(self, name).state_dict())
        target.train(False)
        setattr(self, f"{name}_target", target)
        self._target_names.append(name)

    def add_optimizer(self, name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        """
        Add an optimiser, of the class and with the settings that the user chose.

        :param name: by which losses name it; it becomes the attribute ``<name>_optimizer``, the critic's ``optimizer``
        :param parameters: what it changes
        :param learning_rate: at the start; the algorithm sets it before each update
        """
        trained = list(parameters)
        kwargs = with_fused_step(self.optimizer_class, self.optimizer_kwargs, trained)
        optimizer = self.optimizer_class(trained, lr=learning_rate, **kwargs)  # type: ignore[call-arg]
        setattr(self, optimizer_attribute(name), optimizer)
        self._optimizer_names.append(name)

    @property
    def optimizers(self) -> dict[str, th.optim.Optimizer]:
        """Optimisers by name; "critic" is :attr:`optimizer`, where SB3 looks for it."""
        return {name: getattr(self, optimizer_attribute(name)) for name in self._optimizer_names}

    @property
    def targets(self) -> dict[str, nn.Module]:
        """Target networks by the name of the network that they follow."""
        return {name: getattr(self, f"{name}_target") for name in self._target_names}

    def statistics(self) -> Iterator[th.Tensor]:
        """
        :return: the buffers that an update changes, and that it restores where a loss is not finite: those with
            "running_" in their names, such as batch normalisation's, and those that a subclass adds
        """
        yield from (buffer for name, buffer in self.named_buffers() if "running_" in name)

    @property
    def action_dim(self) -> int:
        """Number of action coordinates."""
        return get_action_dim(self.action_space)

    @property
    def chain_length(self) -> int:
        """Steps of a chain, one after the other; 1 for a network that is evaluated once."""
        return 1

    @property
    def n_parallel(self) -> int:
        """Actions that a chain looks at side by side."""
        return 1

    @property
    def exact_dtype(self) -> th.dtype:
        """The precision of deterministic actions."""
        return th.float32

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the networks in training or evaluation mode; targets always stay in evaluation mode.

        :param mode: True for training mode
        """
        targets = list(map(id, self.targets.values()))
        for network in self.children():
            network.train(mode and id(network) not in targets)
        self.training = mode

    # From an observation to an action: draw, run, act

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations
        :return: what chains depend on, shape (batch, features_dim)
        """
        return self.critic.features(obs)

    @abstractmethod
    def draw(self, features: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        :param features: shape (batch, features_dim)
        :return: the random draws of a chain for each row, on the same device
        """

    @abstractmethod
    def run(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: as :meth:`draw` returns them
        :return: where the chains end, in [-1, 1], shape (batch, action_dim)
        """

    def fixed_draws(self) -> th.Tensor:
        """
        :return: what stands for chance in deterministic actions, the same for all observations, a row for each of
            ``n_action_samples``: by default well spread points of [-1, 1]^d
        """
        return fixed_starts(self.n_action_samples, self.action_dim)

    @abstractmethod
    def run_deterministic(self, features: th.Tensor, draws: th.Tensor) -> th.Tensor:
        """
        The chains of deterministic actions. They are never compiled: what they compute must not depend on whether the
        model was just trained.

        :param features: shape (batch, features_dim)
        :param draws: as of :meth:`fixed_draws`, a row for each of the features, in their precision
        :return: as of :meth:`run`
        """

    def draw_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """
        :return: shapes of what :meth:`draw` returns, in its order, by name; the size of the batch is "batch"
        """
        raise NotImplementedError(f"{type(self).__name__} does not name its draws: override draw_shapes.")

    def exportable(self, dtype: th.dtype) -> ExportableChain:
        """
        :param dtype: in which chains are to be computed
        :return: the chains, for export
        :raises ValueError: if they cannot be exported
        """
        raise ValueError(f"{type(self).__name__} has no form for export: override draw_shapes and exportable.")

    def act(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: ``n_action_samples`` equal rows for each observation
        :param draws: as many
        :return: the best of each observation's actions, shape (batch, action_dim)
        """
        actions = (self._graphed_run if self.use_cuda_graphs else self.run)(features, *draws)
        return best_of_samples(actions, self.n_action_samples, lambda: self.critic.lowest_q_values(features, actions))

    @th.no_grad()
    def noise_free_actions(self, obs: PyTorchObs) -> th.Tensor:
        """
        Deterministic actions, in :attr:`exact_dtype`, and :attr:`batch_invariant` where the policy is.

        :param obs: observations
        :return: actions in [-1, 1], shape (batch, action_dim), float32
        """
        features = self._features_one_by_one(obs) if self.batch_invariant else self.features(obs)
        features = features.to(self.exact_dtype)
        draws = self.fixed_draws().to(features).repeat(len(features), 1)
        features = features.repeat_interleave(self.n_action_samples, dim=0)
        run = self._graphed_run_deterministic if self.use_cuda_graphs else self.run_deterministic
        by_blocks = batch_invariant if self.batch_invariant else _at_once
        actions = by_blocks(run, features, draws)
        return best_of_samples(
            actions, self.n_action_samples, lambda: by_blocks(self.critic.lowest_q_values, features, actions)
        ).float()

    def _features_one_by_one(self, obs: PyTorchObs) -> th.Tensor:
        """The features, shape (batch, features_dim), each extracted by itself unless that is mere copying."""
        extractor = self.critic.features_extractor
        copies = type(extractor) in (FlattenExtractor, CombinedExtractor) and not list(extractor.parameters())
        rows = [obs] if copies else _rows(obs) or [obs]
        return th.cat([self.features(row) for row in rows])

    def constants(self) -> tuple[Any, ...]:
        """
        :return: the Python values on which a chain depends and which may change
        """
        return (self.compiles,)

    def _state(self) -> Iterator[th.Tensor]:
        """The tensors that a chain reads besides its arguments."""
        yield from (*self.parameters(), *self.buffers())

    # What SB3 asks for

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
        features = self.features(observation).repeat_interleave(self.n_action_samples, dim=0)
        return self.act(features, *self.draw(features))

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
        remedy = "A network overflows: its weights or the observation are too large."
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

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(
            lr_schedule=self._dummy_schedule,  # not needed to load the policy alone
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            n_critics=self.n_critics,
            n_action_samples=self.n_action_samples,
        )


def best_of_samples(actions: th.Tensor, n_samples: int, q_values: Callable[[], th.Tensor]) -> th.Tensor:
    """
    :param actions: shape (batch * n_samples, action_dim)
    :param n_samples: actions per observation
    :param q_values: computes the Q-values to compare, shape (batch * n_samples, 1); not called for one sample
    :return: for each observation the action with the highest Q-value, shape (batch, action_dim)
    """
    if n_samples == 1:
        return actions
    best = q_values().reshape(-1, n_samples).argmax(dim=1)[:, None, None].expand(-1, 1, actions.shape[1])
    return actions.reshape(-1, n_samples, actions.shape[1]).gather(1, best).squeeze(1)


def optimizer_attribute(name: str) -> str:
    """
    :param name: of an optimiser
    :return: the policy's attribute that holds it
    """
    return "optimizer" if name == "critic" else f"{name}_optimizer"


@lru_cache
def fixed_starts(n_starts: int, action_dim: int) -> th.Tensor:
    """
    :param n_starts: number of starts
    :param action_dim: number of action coordinates
    :return: well spread points of [-1, 1]^d, shape (n_starts, action_dim), of which the first is the centre, as the
        second of a Sobol sequence is
    """
    if n_starts == 1:
        return th.zeros(1, action_dim)
    sobol = th.quasirandom.SobolEngine(action_dim)  # type: ignore[no-untyped-call]
    points: th.Tensor = 2.0 * sobol.draw(n_starts + 1)[1:] - 1.0
    return points


def _at_once(function: Callable[..., th.Tensor], *inputs: th.Tensor) -> th.Tensor:
    return function(*inputs)


def _rows(observation: PyTorchObs) -> list[PyTorchObs]:
    """The observations of a batch, each as a batch of one, in memory of its own: sums depend on where it begins."""
    if isinstance(observation, dict):
        batch_size = len(next(iter(observation.values())))
        return [{key: value[row : row + 1].clone() for key, value in observation.items()} for row in range(batch_size)]
    return [observation[row : row + 1].clone() for row in range(len(observation))]
