"""The one off-policy loop of LQL and NC-LQL."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    DictReplayBufferSamples,
    GymEnv,
    ReplayBufferSamples,
    Schedule,
)
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update, update_learning_rate
from torch.nn import functional as F

from sb3_lql.common.critics import EnsembleCritic
from sb3_lql.common.guard import StepGuard
from sb3_lql.common.langevin import LangevinSampler
from sb3_lql.common.policies import CnnPolicy, LangevinPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.common.resuming import ResumableAlgorithm
from sb3_lql.common.statistics import RunningMeans
from sb3_lql.common.validation import (
    check_action_space,
    check_count,
    check_flag,
    check_off_policy_arguments,
    check_positive,
)


class LangevinAlgorithm(ResumableAlgorithm):
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
        if self.use_sde or "use_sde" in self.policy_kwargs:
            raise ValueError(
                "use_sde=True is not supported: gSDE perturbs the weights of an actor, and there is no actor. Leave it "
                "out; the chain's own noise explores, and action_noise can add to it."
            )
        for name in {"sampler", "n_action_samples"} & self.policy_kwargs.keys():
            raise ValueError(f"policy_kwargs[{name!r}] is the algorithm's to set: pass its own arguments instead.")

    def _setup_model(self) -> None:
        self._check_arguments()
        # The chain is described by attributes of the algorithm, which load may change. Passed through policy_kwargs,
        # it must not stay there: what a user reads, compares and saves there is what that user wrote
        user_kwargs = self.policy_kwargs
        self.policy_kwargs = user_kwargs | dict(sampler=self._make_sampler(), n_action_samples=self.n_action_samples)
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = user_kwargs
        self._create_aliases()
        self._statistics = RunningMeans()

    def _create_aliases(self) -> None:
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target
        # Running means and variances of batch normalisation
        self._batch_norm_stats = get_parameters_by_name(self.critic, ["running_"])
        self._batch_norm_stats_target = get_parameters_by_name(self.critic_target, ["running_"])

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Update critics and targets on minibatches from the replay buffer.

        :param gradient_steps: number of updates
        :param batch_size: transitions per update
        :raises ValueError: if a loss or its gradient was not finite, after which no step was taken
        """
        assert self.replay_buffer is not None
        self._check_arguments()
        self.policy.set_training_mode(True)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        update_learning_rate(self.policy.optimizer, learning_rate)
        self._guard = StepGuard(self.device)

        for _ in range(gradient_steps):
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            self._n_updates += 1
            batch_norm_stats = [stat.clone() for stat in self._batch_norm_stats]
            self._statistics.add(self._update(replay_data))
            for stat, before in zip(self._batch_norm_stats, batch_norm_stats, strict=True):
                stat.copy_(th.where(self._guard.healthy > 0, stat, before))
            if self._n_updates % self.target_update_interval == 0:
                self._update_target()

        self._guard.check()
        self._logger.record("train/learning_rate", learning_rate)
        self._logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _update(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples) -> dict[str, th.Tensor]:
        """
        One TD step (equation 6, or 8), and what the subclass adds.

        :param replay_data: the minibatch
        :return: scalars to log, by name
        """
        actions = replay_data.actions.float()
        target_q_values, statistics = self._td_target(replay_data)
        q_values = self.critic(replay_data.observations, actions)
        # Summed over critics: each has its own mean squared error
        critic_loss = F.mse_loss(q_values, target_q_values.expand_as(q_values)) * len(q_values)
        self._gradient_step("critic_loss", critic_loss)
        auxiliary = self._auxiliary_step(replay_data, actions, q_values.detach())
        return {"critic_loss": critic_loss, "q_mean": q_values.mean(), **statistics, **auxiliary}

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
            "score_norm": chain.score_norm,
            "next_action_std": chain.actions.std(dim=0, correction=0).mean(),
            "next_action_at_bound": (chain.actions.abs() >= 1.0).float().mean(),
        }

    def _gradient_step(self, name: str, loss: th.Tensor) -> None:
        """One step of the optimiser, which TD and auxiliary losses share; see :class:`StepGuard`."""
        self._guard.step(self.policy.optimizer, loss, name, self._n_updates)

    @th.no_grad()
    def _update_target(self) -> None:
        # The targets too stay as they are after a loss that was not finite. That makes tau a tensor, which SB3's
        # polyak_update would fetch from the device
        tau = self.tau * self._guard.healthy
        for parameter, target in zip(self.critic.parameters(), self.critic_target.parameters(), strict=True):
            target.lerp_(parameter, tau)
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
            "_statistics",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
