"""The engine: off-policy learning of critics by TD, around which an algorithm hooks its mathematics."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from numbers import Real
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    DictReplayBufferSamples,
    GymEnv,
    ReplayBufferSamples,
    Schedule,
    TrainFreq,
    TrainFrequencyUnit,
)
from torch.nn import functional as F

from sb3_lql.common.acceleration import GraphedFunction
from sb3_lql.common.compatibility import (
    check_arguments_known,
    check_observation_space,
    check_policy,
    check_policy_kwargs,
)
from sb3_lql.common.device_buffers import check_replay_buffer
from sb3_lql.common.validation import (
    check_action_space,
    check_before_construction,
    check_count,
    check_flag,
    check_off_policy_arguments,
    check_positive,
)
from sb3_lql.engine.arguments import DEFAULTS, SB3_ARGUMENTS, compose_signature
from sb3_lql.engine.optimization import StepGuard, polyak_update, set_learning_rate
from sb3_lql.engine.policy import ChainPolicy, optimizer_attribute
from sb3_lql.engine.values import lowest_q_value
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.saving.copying import CopyingMixin
from sb3_lql.saving.mixin import SavingMixin
from sb3_lql.saving.safe.arguments import argument_names

#: Updates that ``compile=None`` expects of a ``learn`` before it compiles, which takes the time of a thousand or two.
UPDATES_WORTH_COMPILING = 10_000

#: A minibatch.
Batch = ReplayBufferSamples | DictReplayBufferSamples


class Loss(NamedTuple):
    """What an update descends besides the TD loss."""

    #: Name under which it is logged.
    name: str
    #: The policy's optimiser that takes the step.
    optimizer: str
    #: Scalar, with its graph.
    value: th.Tensor


class ChainAlgorithm(SavingMixin, CopyingMixin):
    """
    Off-policy TD learning of critics, for a policy that turns draws into actions.

    An algorithm defines the next actions of its TD targets (:meth:`_next_actions`), their values (:meth:`_backup`),
    what else an update learns (:meth:`_after_td_step`) and what happens between updates (:meth:`_between_updates`). All
    that is learned lives in the policy. Arguments that all algorithms share are those of
    :class:`~sb3_lql.engine.arguments.SharedArguments`.

    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: Policy classes by name.
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}
    #: What policy classes derive from.
    policy_base: ClassVar[type[BasePolicy]]
    #: The shared arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DEFAULTS
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = {}
    #: Names of arguments that are intervals in updates, such as of a delayed update.
    delays: ClassVar[tuple[str, ...]] = ()
    #: Largest norm of the gradient in an optimiser's step; ``None`` for no limit.
    max_grad_norm: float | None = None

    #: The policy, which holds everything that is learned.
    policy: ChainPolicy
    #: The critic, which is the policy's.
    critic: EnsembleCritic
    #: The critic that targets come from, which is the policy's.
    critic_target: EnsembleCritic
    #: The environments' action space.
    action_space: spaces.Box
    # Arguments of the constructor, see SharedArguments
    reward_scale: float
    target_update_interval: int
    compile: bool | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        compose_signature(cls)

    def __init__(
        self,
        policy: str | type[ChainPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        **kwargs: Any,
    ) -> None:
        check_arguments_known(type(self).__name__, kwargs, self.defaults, also=argument_names(type(self)))
        defaults = {name: value for name, value in self.defaults.items() if name not in kwargs}
        arguments = copy.deepcopy(defaults) | kwargs
        check_before_construction(env, arguments)
        of_sb3 = {name: arguments.pop(name) for name in SB3_ARGUMENTS & arguments.keys()}
        init_setup_model = arguments.pop("_init_setup_model")
        vars(self).update(arguments)
        check_policy(policy, self._aliases(), self.policy_base)
        if env is not None:
            env = maybe_make_env(env, of_sb3["verbose"])
            check_action_space(env.action_space)
            check_observation_space(env.observation_space)
        super().__init__(policy, env, learning_rate, sde_support=False, support_multi_env=True, **of_sb3)  # type: ignore[arg-type]
        if init_setup_model:
            self._setup_model()

    # What an algorithm may override

    def _aliases(self) -> dict[str, type[BasePolicy]]:
        """Policy classes by name, which an algorithm's arguments may decide."""
        return self.policy_aliases

    def _sample(self, batch_size: int) -> Batch:
        """The minibatch of an update: SB3's named tuple, or one with more fields."""
        return cast(Batch, self.replay_buffer.sample(batch_size, env=self._vec_normalize_env))

    @abstractmethod
    def _next_actions(self, batch: Batch) -> th.Tensor:
        """
        :param batch: the minibatch
        :return: actions at its next observations, in [-1, 1], shape (batch, action_dim)
        """

    def _backup(self, batch: Batch, next_actions: th.Tensor) -> th.Tensor:
        """
        ``reward_scale * r + gamma * min_k Q_target_k(s', a')``.

        :param batch: the minibatch
        :param next_actions: ``a'``, from :meth:`_next_actions`
        :return: TD targets, shape (batch, 1)
        """
        return self._bootstrap(batch, self.critic_target(batch.next_observations, next_actions).amin(dim=0))

    def _bootstrap(self, batch: Batch, next_values: th.Tensor) -> th.Tensor:
        """
        :param batch: the minibatch
        :param next_values: what its next observations are worth, shape (batch, 1)
        :return: what it is worth by its rewards and those, shape (batch, 1)
        """
        # For n-step returns, the discount is gamma ** n_steps
        discounts = self.gamma if batch.discounts is None else batch.discounts
        target: th.Tensor = self.reward_scale * batch.rewards + (1 - batch.dones) * discounts * next_values
        return target

    def _estimate(self, batch: Batch) -> th.Tensor:
        """
        The predictions of the critics for a minibatch, with their graph.

        :param batch: the minibatch
        :return: Q, shape (n_critics, batch, 1); what else :meth:`_td_loss` takes may follow it in the last dimension
        """
        q_values: th.Tensor = self.critic(batch.observations, batch.actions.float())
        return q_values

    def _td_loss(self, batch: Batch, estimate: th.Tensor, target: th.Tensor) -> th.Tensor:
        """
        The mean squared error of each critic, summed over critics.

        :param batch: the minibatch
        :param estimate: from :meth:`_estimate`
        :param target: from :meth:`_backup`
        :return: scalar
        """
        return F.mse_loss(estimate, target.expand_as(estimate)) * len(estimate)

    def _before_td_step(self, batch: Batch) -> Iterator[Loss]:
        """
        The losses that an update descends after the TD target is computed and before the critics take the TD step.

        :param batch: the minibatch
        :return: losses, with the optimisers that descend them
        """
        yield from ()

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        """
        The losses that an update descends after the TD step, each computed once the step before it was taken. Nothing
        here may wait for the device.

        :param batch: the minibatch
        :param q_values: Q of that minibatch *before* the TD step, shape (n_critics, batch, 1), without gradient
        :param next_actions: those of the TD target
        :return: losses, with the optimisers that descend them
        """
        yield from ()

    def _between_updates(self) -> None:
        """What is done after each update and cannot be recorded as a CUDA graph; nothing by default."""

    def _is_due(self, interval: int) -> bool:
        """Whether the current update is one of those ``interval`` updates apart."""
        return self._n_updates % interval == 0

    def _target_interval(self, name: str) -> int:
        """Every how many updates the target of a network follows it."""
        return self.target_update_interval

    def _policy_arguments(self) -> dict[str, Any]:
        """What the policy is made with besides ``policy_kwargs``, by the algorithm's own arguments."""
        return dict(n_action_samples=self.n_action_samples)

    def _learning_rates(self) -> dict[str, float]:
        """The learning rate of each optimiser; for all that of the schedule by default."""
        return dict.fromkeys(self.policy.optimizers, float(self.lr_schedule(self._current_progress_remaining)))

    def _update_constants(self) -> tuple[Any, ...]:
        """The Python values besides the networks' shapes on which an update depends."""
        due = (self._is_due(getattr(self, name)) for name in self.delays)
        following = (self._is_due(self._target_interval(name)) for name in self.policy.targets)
        return self.gamma, self.reward_scale, self.max_grad_norm, *due, *following, *self.policy.constants()

    def _check_arguments(self) -> None:
        """
        Refuse bad values now rather than as a NaN an hour later: at construction, and those set later or by ``load``.

        :raises ValueError: for values out of range
        :raises TypeError: for values of the wrong type
        """
        check_off_policy_arguments(self)
        check_positive("reward_scale", self.reward_scale)
        if self.max_grad_norm is not None:
            check_positive("max_grad_norm", self.max_grad_norm)
        for name in ("target_update_interval", "n_action_samples", *self.delays):
            check_count(name, getattr(self, name))
        if self.compile is not None:
            check_flag("compile", self.compile)
        check_flag("overlap_updates", self.overlap_updates)
        check_replay_buffer(self.replay_buffer_class, self.replay_buffer_kwargs, self.n_steps)
        if self.replay_buffer_class is not None:
            self._check_replay_buffer_class(self.replay_buffer_class)
        if self.overlap_updates and issubclass(self.replay_buffer_class or ReplayBuffer, HerReplayBuffer):
            raise ValueError(
                "overlap_updates=True does not go with HerReplayBuffer, which asks the environments for rewards while "
                "they are busy: leave it out."
            )

    # Construction

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return self._aliases()[policy_name]

    @property
    def n_action_samples(self) -> int:
        """Actions drawn per observation when acting; it may be changed at any time."""
        # Stored under its own name, where SB3's save and load look for it
        value: int = vars(self)["n_action_samples"]
        return value

    @n_action_samples.setter
    def n_action_samples(self, value: int) -> None:
        value = check_count("n_action_samples", value)
        if hasattr(self, "policy"):
            self.policy.n_action_samples = value
        vars(self)["n_action_samples"] = value

    def policy_arguments(self) -> dict[str, Any]:
        """
        :return: ``policy_kwargs``, and what else the policy is made with
        :raises ValueError: if ``policy_kwargs`` holds what the algorithm sets
        """
        own = self._policy_arguments()
        check_policy_kwargs(self.policy_kwargs, self.use_sde, own)
        given = {name: value for name, value in self.policy_kwargs.items() if name != "use_sde"}
        # Settings of a class do not outlive it: those of our optimiser are none of the user's
        replaced = {name.removesuffix("class") + "kwargs" for name in given if name.endswith("_class")}
        defaults = {name: value for name, value in self.policy_defaults.items() if name not in replaced}
        return copy.deepcopy(defaults) | given | own

    def _setup_model(self) -> None:
        # In place of SB3's, which makes a replay buffer for a model that only acts too, and takes all arguments of the
        # policy from policy_kwargs: what a user reads, compares and saves there is what that user wrote
        self._check_arguments()
        if isinstance(self.learning_rate, Real):
            self.learning_rate = float(self.learning_rate)  # SB3 takes no number of NumPy's
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._convert_train_freq()
        self._choose_replay_buffer_class()
        if self.env is not None:  # if memory is short, this is the moment to hear of it
            _ = self.replay_buffer
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            **self.policy_arguments(),
        ).to(self.device)
        self._create_aliases()
        self._set_up_chains()
        self._guard = StepGuard(self.device)
        self._tau = th.full((), float(self.tau), device=self.device)  # as a tensor, it may change between replays
        self._logged: dict[str, th.Tensor] = {}
        # SB3 makes a logger when `learn` is called; `train` can be called by itself
        self._logger = Logger(folder=None, output_formats=[])
        self._graphed_update = GraphedFunction(self._update, self._update_state, self._update_constants)

    def _create_aliases(self) -> None:
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target
        self._statistics = list(self.policy.statistics())

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._set_up_chains(self._planned_updates(total_timesteps))
        return super()._setup_learn(total_timesteps, *args, **kwargs)

    def _set_up_chains(self, planned_updates: int = 0) -> None:
        """Let chains and critics be compiled and replayed as ``compile`` has it."""
        self.policy.compiles = planned_updates >= UPDATES_WORTH_COMPILING if self.compile is None else self.compile
        self.policy.use_cuda_graphs = self.compile is not False
        for network in self.policy.modules():
            if isinstance(network, EnsembleCritic):
                network.compiles = self.policy.compiles

    def _planned_updates(self, total_timesteps: int) -> int:
        """Updates in so many steps; none if that depends on the length of episodes."""
        if self.gradient_steps < 0:
            return total_timesteps
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit == TrainFrequencyUnit.EPISODE:
            return 0
        return total_timesteps // (self.train_freq.frequency * self.n_envs) * self.gradient_steps

    # From a transition to an update

    def _train(self, gradient_steps: int, batch_size: int) -> None:
        self._check_arguments()
        self.policy.set_training_mode(True)
        rates = self._learning_rates()
        wanted = self.device.type == GraphedFunction.DEVICE_TYPE and self.compile is not False
        recordable = [
            set_learning_rate(optimizer, rates[name], wanted) for name, optimizer in self.policy.optimizers.items()
        ]
        update = self._graphed_update if all(recordable) else self._update
        self._guard.reset()
        self._tau.fill_(self.tau)
        names: list[tuple[str, ...]] = []
        rows: list[th.Tensor] = []

        for _ in range(gradient_steps):
            batch = self._sample(batch_size)
            self._n_updates += 1
            logged = update(batch)
            names.append(tuple(logged))
            rows.append(th.stack(list(logged.values())))
            self._between_updates()

        fetched = self._guard.check(first_update=self._n_updates - gradient_steps + 1, also=rows)
        for row_names, row in zip(names, fetched, strict=True):
            for name, value in zip(row_names, row, strict=True):
                self._logger.record_mean(f"train/{name}", value)
        self._logger.record("train/learning_rate", rates["critic"])
        self._logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """
        One TD step, what the algorithm adds, and the targets that follow. Nothing in it waits for the device.

        :param batch: the minibatch
        :return: scalars to log, by name
        """
        self._guard.begin_update()
        before = [statistic.clone() for statistic in self._statistics]
        self._logged = {}
        with th.no_grad():
            next_actions = self._next_actions(batch)
            target = self._backup(batch, next_actions)
        for loss in self._before_td_step(batch):
            self._descend(loss)
        estimate = self._estimate(batch)
        self._descend(Loss("critic_loss", "critic", self._td_loss(batch, estimate, target)))
        q_values = estimate[..., :1].detach()
        self._log("q_mean", q_values.mean())
        for loss in self._after_td_step(batch, q_values, next_actions):
            self._descend(loss)
        for statistic, value in zip(self._statistics, before, strict=True):
            statistic.copy_(th.where(self._guard.healthy > 0, statistic, value))
        self._update_targets()
        return self._logged

    def _descend(self, loss: Loss) -> None:
        """One step of an optimiser; see :class:`~sb3_lql.engine.optimization.StepGuard`."""
        self._guard.step(self.policy.optimizers[loss.optimizer], loss.value, loss.name, self.max_grad_norm)
        self._log(loss.name, loss.value)

    def _log(self, name: str, value: th.Tensor) -> None:
        """
        Log the mean of a scalar over updates, as ``train/<name>``. It stays on the device until then.

        :param name: what it is called
        :param value: shape ()
        """
        # A recording keeps what is returned, and would keep autograd's graph with it
        self._logged[name] = value.detach()

    def _update_state(self) -> Iterator[th.Tensor]:
        """The tensors besides the minibatch that an update reads and writes."""
        for optimizer in self.policy.optimizers.values():
            yield from (group["lr"] for group in optimizer.param_groups)
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, th.Tensor))
        yield from (*self.policy.parameters(), *self.policy.buffers(), *self._guard.state(), self._tau)

    def _update_targets(self) -> None:
        # They too stay as they are after a loss that was not finite. SB3's polyak_update would wait for the device
        tau = self._tau * self._guard.healthy
        for name, target in self.policy.targets.items():
            if self._is_due(self._target_interval(name)):
                polyak_update(getattr(self.policy, name), target, tau)

    def q_value(self, observation: np.ndarray | dict[str, np.ndarray], action: np.ndarray) -> np.ndarray:
        """
        What the critics think of an action: the smallest of them, at the last noise level.

        ``reward_scale`` is divided out: the unit is that of the discounted return, of normalised rewards where
        ``VecNormalize`` normalises them.

        :param observation: one observation or a batch, as for ``predict``: normalised, if the model was trained so
        :param action: as many actions, within the action space's own bounds
        :return: Q of shape (batch,), or of shape () for one observation
        :raises ValueError: if actions have another shape, lie out of bounds, or are not as many as observations
        """
        q_values: np.ndarray = lowest_q_value(self.policy, observation, action) / self.reward_scale
        return q_values

    # Saving

    def _excluded_save_params(self) -> list[str]:
        names_of_parts = ["critic", "critic_target", "_statistics"]
        made_anew = ["_guard", "_tau", "_graphed_update", "_logged"]
        of_learn = ["_learning_starts_shift", "_learning", "_postponed", "_checked_env"]
        return [*super()._excluded_save_params(), *names_of_parts, *made_anew, *of_learn]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        optimizers = [f"policy.{optimizer_attribute(name)}" for name in self.policy.optimizers]
        return ["policy", *optimizers], []
