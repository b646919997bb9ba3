"""The one off-policy loop of LQL and NC-LQL."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
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
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update
from torch.nn import functional as F

from sb3_lql.common.acceleration import GraphedFunction
from sb3_lql.common.buffers import check_replay_buffer, default_replay_buffer_class
from sb3_lql.common.collection import CollectingAlgorithm
from sb3_lql.common.critics import EnsembleCritic
from sb3_lql.common.guard import StepGuard, is_fused
from sb3_lql.common.langevin import LangevinSampler
from sb3_lql.common.policies import CnnPolicy, LangevinPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.common.statistics import RunningMeans
from sb3_lql.common.validation import (
    check_action_space,
    check_count,
    check_flag,
    check_off_policy_arguments,
    check_positive,
)

#: Updates that ``compile=None`` expects of a ``learn`` before it compiles, which takes the time of a thousand or two.
UPDATES_WORTH_COMPILING = 10_000


class LangevinAlgorithm(CollectingAlgorithm):
    """
    Off-policy TD learning of a critic whose Langevin chain is the policy.

    A subclass says which chain (:meth:`_make_sampler`) and what an update adds to the TD step
    (:meth:`_auxiliary_step`). Arguments that are not listed here are those of SB3's ``OffPolicyAlgorithm``.

    :param policy: policy class or its alias
    :param env: environment, or its id
    :param inverse_temperature: ``w`` of the target density exp(w * Q)
    :param n_langevin_steps: ``T``, Langevin steps per noise level
    :param normalize_score: divide every score by its L2 norm (appendix E.2)
    :param reward_scale: factor on rewards inside the update
    :param target_update_interval: update the target critics every so many updates
    :param n_action_samples: chains per action when acting; the action of the highest minimum critic is taken
    :param compile: compile the chain and, on a GPU, replay updates as CUDA graphs; chosen automatically if ``None``
    :param bfloat16_chain: multiply the chain's matrices in bfloat16
    :param overlap_updates: make updates while the environments step
    :param use_sde: not supported
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: LangevinPolicy
    critic: EnsembleCritic
    critic_target: EnsembleCritic
    action_space: spaces.Box

    def __init__(
        self,
        policy: str | type[LangevinPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        inverse_temperature: float,
        n_langevin_steps: int,
        normalize_score: bool,
        reward_scale: float,
        target_update_interval: int,
        n_action_samples: int,
        compile: bool | None,
        bfloat16_chain: bool,
        overlap_updates: bool,
        use_sde: bool,
        **off_policy_kwargs: Any,
    ) -> None:
        if env is not None:
            env = maybe_make_env(env, off_policy_kwargs.get("verbose", 0))
            check_action_space(env.action_space)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate,
            use_sde=use_sde,
            sde_support=False,
            support_multi_env=True,
            **off_policy_kwargs,
        )
        self.inverse_temperature = inverse_temperature
        self.n_langevin_steps = n_langevin_steps
        self.normalize_score = normalize_score
        self.reward_scale = reward_scale
        self.target_update_interval = target_update_interval
        self.n_action_samples = n_action_samples
        self.compile = compile
        self.bfloat16_chain = bfloat16_chain
        self.overlap_updates = overlap_updates

    @abstractmethod
    def _make_sampler(self) -> LangevinSampler:
        """
        :return: the chain that the constructor's arguments describe
        """

    def _auxiliary_step(
        self,
        replay_data: ReplayBufferSamples | DictReplayBufferSamples,
        actions: th.Tensor,
        q_values: th.Tensor,
    ) -> dict[str, th.Tensor]:
        """
        What an update does after the TD step; nothing, unless a subclass says so.

        :param replay_data: the minibatch
        :param actions: its actions, shape (batch, action_dim), float32
        :param q_values: Q of that minibatch *before* the TD step, shape (n_critics, batch, 1), without gradient
        :return: scalars to log, by name
        """
        return {}

    # Two settings of the policy may be changed at any time. They are stored under their own names, where SB3's save
    # and load look for them

    @property
    def inverse_temperature(self) -> float:
        """``w`` of the target density exp(w * Q)."""
        value: float = self.__dict__["inverse_temperature"]
        return value

    @inverse_temperature.setter
    def inverse_temperature(self, value: float) -> None:
        value = check_positive("inverse_temperature", value)
        if hasattr(self, "policy"):
            self.policy.sampler.inverse_temperature = value
        self.__dict__["inverse_temperature"] = value

    @property
    def n_action_samples(self) -> int:
        """Chains per action when acting."""
        value: int = self.__dict__["n_action_samples"]
        return value

    @n_action_samples.setter
    def n_action_samples(self, value: int) -> None:
        value = check_count("n_action_samples", value)
        if hasattr(self, "policy"):
            self.policy.n_action_samples = value
        self.__dict__["n_action_samples"] = value

    def _check_arguments(self) -> None:
        """
        Refuse bad values now rather than as a NaN an hour later: at construction, and those set later or by ``load``.

        :raises ValueError: for values out of range
        :raises TypeError: for values of the wrong type
        """
        check_off_policy_arguments(self)
        check_positive("inverse_temperature", self.inverse_temperature)
        check_count("n_langevin_steps", self.n_langevin_steps)
        check_flag("normalize_score", self.normalize_score)
        check_positive("reward_scale", self.reward_scale)
        check_count("target_update_interval", self.target_update_interval)
        check_count("n_action_samples", self.n_action_samples)
        if self.compile is not None:
            check_flag("compile", self.compile)
        check_flag("bfloat16_chain", self.bfloat16_chain)
        check_flag("overlap_updates", self.overlap_updates)
        check_replay_buffer(self.replay_buffer_class, self.n_steps)
        if self.use_sde or "use_sde" in self.policy_kwargs:
            raise ValueError(
                "use_sde=True is not supported: gSDE perturbs the weights of an actor, and there is no actor. Leave it "
                "out; the chain's own noise explores, and action_noise can add to it."
            )
        for name in {"sampler", "n_action_samples", "bfloat16_chain"} & self.policy_kwargs.keys():
            raise ValueError(f"policy_kwargs[{name!r}] is the algorithm's to set: pass its own arguments instead.")

    def _setup_model(self) -> None:
        self._check_arguments()
        # The chain is described by attributes of the algorithm, which load may change. Passed through policy_kwargs,
        # it must not stay there: what a user reads, compares and saves there is what that user wrote
        user_kwargs = self.policy_kwargs
        self.policy_kwargs = user_kwargs | dict(
            sampler=self._make_sampler(),
            n_action_samples=self.n_action_samples,
            bfloat16_chain=self.bfloat16_chain,
        )
        chosen_class = self.replay_buffer_class
        if chosen_class is None:
            chosen_class = self._make_default_replay_buffer()
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = user_kwargs
        self.replay_buffer_class = chosen_class
        self._create_aliases()
        self._statistics = RunningMeans()
        self._guard = StepGuard(self.device)
        self._graphed_update = GraphedFunction(self._update, self._update_state, self._update_constants)
        self.policy.compile_chain = bool(self.compile)
        self.policy.use_cuda_graphs = self.compile is not False
        if self.verbose >= 1 and not self.critic.has_closed_form_gradient:
            print(  # noqa: T201
                "The critic's action-gradient has no closed form here and is left to autograd, uncompiled and slower: "
                "closed forms are known for critics of linear layers with Mish, ReLU, SiLU or Tanh."
            )

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self.policy.use_cuda_graphs = self.compile is not False
        self.policy.compile_chain = bool(self.compile)
        if self.compile is None:
            self.policy.compile_chain = self._planned_updates(total_timesteps) >= UPDATES_WORTH_COMPILING
        return super()._setup_learn(total_timesteps, *args, **kwargs)

    def _planned_updates(self, total_timesteps: int) -> int:
        """Updates in so many steps; none if that depends on the length of episodes."""
        if self.gradient_steps < 0:
            return total_timesteps
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit == TrainFrequencyUnit.EPISODE:
            return 0
        return total_timesteps // (self.train_freq.frequency * self.n_envs) * self.gradient_steps

    def _make_default_replay_buffer(self) -> type[ReplayBuffer]:
        """Fill ``replay_buffer``, which SB3 then leaves as it is, and return the class that was chosen."""
        replay_buffer_class = default_replay_buffer_class(self.observation_space, self.n_steps)
        n_step_kwargs = dict(n_steps=self.n_steps, gamma=self.gamma) if self.n_steps > 1 else {}
        self.replay_buffer = replay_buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **self.replay_buffer_kwargs | n_step_kwargs,
        )
        return replay_buffer_class

    def _create_aliases(self) -> None:
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target
        # Running means and variances of batch normalisation
        self._batch_norm_stats = get_parameters_by_name(self.critic, ["running_"])
        self._batch_norm_stats_target = get_parameters_by_name(self.critic_target, ["running_"])

    def _train(self, gradient_steps: int, batch_size: int) -> None:
        assert self.replay_buffer is not None
        self._check_arguments()
        self.policy.set_training_mode(True)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        update = self._graphed_update if self._prepare_optimizer(learning_rate) else self._update
        self._guard.reset()

        for _ in range(gradient_steps):
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            self._n_updates += 1
            self._statistics.add(update(replay_data))
            if self._n_updates % self.target_update_interval == 0:
                self._update_target()

        self._guard.check(first_update=self._n_updates - gradient_steps + 1)
        self._logger.record("train/learning_rate", learning_rate)
        self._logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _prepare_optimizer(self, learning_rate: float) -> bool:
        """
        Set the learning rate.

        :return: whether updates may be recorded, which takes a GPU, the user's consent and an optimiser that is told on
            the device what to do: its learning rate is a tensor then
        """
        optimizer = self.policy.optimizer
        wanted = self.device.type == GraphedFunction.DEVICE_TYPE and self.compile is not False
        recordable = wanted and is_fused(optimizer)
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = recordable
            if not recordable:
                group["lr"] = learning_rate
            elif isinstance(group["lr"], th.Tensor) and group["lr"].device == self.device:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = th.tensor(learning_rate, device=self.device)
        return recordable

    def _update_constants(self) -> tuple[Any, ...]:
        """The Python values besides the network's shape on which an update depends."""
        return self.gamma, self.reward_scale, self.policy.compile_chain

    def _update_state(self) -> Iterator[th.Tensor]:
        """The tensors besides the minibatch that an update reads and writes."""
        optimizer = self.policy.optimizer
        for group in optimizer.param_groups:
            yield group["lr"]
            for parameter in group["params"]:
                yield parameter
                yield from (value for value in optimizer.state[parameter].values() if isinstance(value, th.Tensor))
        yield from self.critic_target.parameters()
        yield from (*self.critic.buffers(), *self.critic_target.buffers(), *self.policy.sampler.buffers())
        yield from self._guard.state()

    def _update(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples) -> dict[str, th.Tensor]:
        """
        One TD step (equation 6, or 8), and what the subclass adds. Nothing in it waits for the device.

        :param replay_data: the minibatch
        :return: scalars to log, by name
        """
        self._guard.begin_update()
        batch_norm_stats = [stat.clone() for stat in self._batch_norm_stats]
        actions = replay_data.actions.float()
        target_q_values, statistics = self._td_target(replay_data)
        q_values = self.critic(replay_data.observations, actions)
        # Summed over critics: each has its own mean squared error
        critic_loss = F.mse_loss(q_values, target_q_values.expand_as(q_values)) * len(q_values)
        self._gradient_step("critic_loss", critic_loss)
        auxiliary = self._auxiliary_step(replay_data, actions, q_values.detach())
        for stat, before in zip(self._batch_norm_stats, batch_norm_stats, strict=True):
            stat.copy_(th.where(self._guard.healthy > 0, stat, before))
        statistics = {"critic_loss": critic_loss, "q_mean": q_values.mean(), **statistics, **auxiliary}
        return {name: value.detach() for name, value in statistics.items()}

    @th.no_grad()
    def _td_target(
        self, replay_data: ReplayBufferSamples | DictReplayBufferSamples
    ) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        """
        ``reward_scale * r + gamma * min_k Q_target_k(s', a')`` with ``a'`` from the online critics' chain.

        :param replay_data: the minibatch
        :return: targets of shape (batch, 1), and scalars to log about the next actions
        """
        chain = self.policy.run_chain(self.critic.features(replay_data.next_observations))
        next_q_values = self.critic_target(replay_data.next_observations, chain.actions).amin(dim=0)
        # For n-step returns, the discount is gamma ** n_steps
        discounts = self.gamma if replay_data.discounts is None else replay_data.discounts
        target = self.reward_scale * replay_data.rewards + (1 - replay_data.dones) * discounts * next_q_values
        return target, {
            "score_norm": chain.score_norms.mean(),
            "next_action_std": chain.actions.std(dim=0, correction=0).mean(),
            "next_action_at_bound": (chain.actions.abs() >= 1.0).float().mean(),
        }

    def _gradient_step(self, name: str, loss: th.Tensor) -> None:
        """One step of the optimiser, which TD and auxiliary losses share; see :class:`StepGuard`."""
        self._guard.step(self.policy.optimizer, loss, name)

    @th.no_grad()
    def _update_target(self) -> None:
        # The targets too stay as they are after a loss that was not finite. That makes tau a tensor, which SB3's
        # polyak_update would fetch from the device
        parameters: list[th.Tensor] = list(self.critic.parameters())
        targets: list[th.Tensor] = list(self.critic_target.parameters())
        tau = self.tau * self._guard.healthy
        th._foreach_mul_(targets, 1.0 - tau)
        th._foreach_add_(targets, list(th._foreach_mul(parameters, tau)))
        polyak_update(self._batch_norm_stats, self._batch_norm_stats_target, 1.0)

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
        self.policy.set_training_mode(False)
        obs, vectorized = self.policy.obs_to_tensor(observation)
        action, shape = np.asarray(action), self.action_space.shape
        if action.shape not in (shape, action.shape[:1] + shape):
            raise ValueError(f"action has shape {action.shape}: pass {shape}, or (batch, *{shape}).")
        if not ((self.action_space.low <= action) & (action <= self.action_space.high)).all():
            raise ValueError(f"action={action} lies outside {self.action_space}: pass actions within its bounds.")
        scaled = self.policy.scale_action(action.reshape(-1, *shape))
        actions = th.as_tensor(scaled.reshape(len(scaled), -1), device=self.device)
        with th.no_grad():
            features = self.critic.features(obs)
            if len(features) != len(actions):
                raise ValueError(f"action holds {len(actions)} actions for {len(features)} observations: pass as many.")
            q_values = self.critic.q_values(features, actions).amin(dim=0).squeeze(1) / self.reward_scale
        result: np.ndarray = q_values.cpu().numpy()
        return result if vectorized else result.squeeze(0)

    @property
    def logger(self) -> Logger:
        """The logger. Whoever asks for it finds in it the means of what was computed since it was last asked for."""
        for name, value in self._statistics.collect().items():
            self._logger.record(f"train/{name}", value)
        return self._logger

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "critic",
            "critic_target",
            "_batch_norm_stats",
            "_batch_norm_stats_target",
            "_guard",
            "_graphed_update",
            "_statistics",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
