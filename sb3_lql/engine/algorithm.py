"""The one off-policy loop of LQL and NC-LQL."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update
from torch.nn import functional as F

from sb3_lql.engine.acceleration import GraphedFunction
from sb3_lql.engine.guard import StepGuard, is_fused
from sb3_lql.saving.copying import CopyableModel


class LangevinAlgorithm(CopyableModel):
    """
    Off-policy TD learning of a critic whose Langevin chain is the policy.

    A subclass says which chain (:meth:`_make_sampler`) and what an update adds to the TD step
    (:meth:`_auxiliary_step`). Its arguments are those of :class:`~sb3_lql.engine.model.LangevinModel`.
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        self._guard = StepGuard(self.device)
        # SB3 makes a logger when `learn` is called; `train` can be called by itself
        self._logger = Logger(folder=None, output_formats=[])
        self._graphed_update = GraphedFunction(self._update, self._update_state, self._update_constants)

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

    def _train(self, gradient_steps: int, batch_size: int) -> None:
        self._check_arguments()
        self.policy.set_training_mode(True)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        update = self._graphed_update if self._prepare_optimizer(learning_rate) else self._update
        self._guard.reset()
        names: tuple[str, ...] = ()
        rows: list[th.Tensor] = []

        for _ in range(gradient_steps):
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            self._n_updates += 1
            statistics = update(replay_data)
            names = tuple(statistics)
            rows.append(th.stack(list(statistics.values())))
            if self._n_updates % self.target_update_interval == 0:
                self._update_target()

        for row in self._guard.check(first_update=self._n_updates - gradient_steps + 1, also=rows):
            for name, value in zip(names, row, strict=True):
                self._logger.record_mean(f"train/{name}", value)
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
                continue
            device = group["params"][0].device  # with its index, unlike the model's
            if isinstance(group["lr"], th.Tensor) and group["lr"].device == device:
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = th.tensor(learning_rate, device=device)
        return recordable

    def _update_constants(self) -> tuple[Any, ...]:
        """The Python values besides the network's shape on which an update depends."""
        return self.gamma, self.reward_scale, *self.policy.chains.constants()

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
        # A recording keeps what is returned, and would keep autograd's graph with it
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
        parameters, targets = _unshared(self.critic.parameters(), self.critic_target.parameters())
        tau = self.tau * self._guard.healthy
        th._foreach_mul_(targets, 1.0 - tau)
        th._foreach_add_(targets, list(th._foreach_mul(parameters, tau)))
        polyak_update(*_unshared(self._batch_norm_stats, self._batch_norm_stats_target), 1.0)

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

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_guard", "_graphed_update"]


def _unshared(tensors: Iterable[th.Tensor], targets: Iterable[th.Tensor]) -> tuple[list[th.Tensor], list[th.Tensor]]:
    """
    Those of which the target is another tensor. Critics share what is passed in to both, such as a pretrained encoder
    in ``features_extractor_kwargs``: it is its own target.
    """
    pairs = [(own, target) for own, target in zip(tensors, targets, strict=True) if own.data_ptr() != target.data_ptr()]
    return [own for own, _ in pairs], [target for _, target in pairs]
