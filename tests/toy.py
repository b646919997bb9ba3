"""A third algorithm, as small as can be: what it takes to add one."""

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn
from typing_extensions import Unpack

from sb3_lql.engine.algorithm import Batch, ChainAlgorithm, Loss
from sb3_lql.engine.arguments import SharedArguments
from sb3_lql.engine.policy import ChainPolicy


class ToyPolicy(ChainPolicy):
    """A squashed Gaussian actor, with a target, and a learned temperature."""

    def __init__(self, observation_space: Any, action_space: Any, lr_schedule: Schedule, **kwargs: Any) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.actor = nn.Linear(self.critic.features_extractor.features_dim, 2 * self.action_dim)
        self.log_temperature = nn.Parameter(th.zeros(()))
        self.add_target("actor", copy.deepcopy(self.actor))
        self.add_optimizer("actor", self.actor.parameters(), lr_schedule(1))
        self.add_optimizer("temperature", [self.log_temperature], lr_schedule(1))

    def draw(self, features: th.Tensor) -> tuple[th.Tensor, ...]:
        return (th.randn(len(features), self.action_dim, device=features.device),)

    def run(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        mean, log_std = self.actor(features).chunk(2, dim=1)
        return th.tanh(mean + log_std.exp() * draws[0])

    def run_deterministic(self, features: th.Tensor, starts: th.Tensor) -> th.Tensor:
        return self.run(features, starts)


class Toy(ChainAlgorithm):
    """
    Ascends the critic with entropy's help, every other update.

    :param policy_delay: update the actor and the temperature every so many updates
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"MlpPolicy": ToyPolicy}
    policy_base = ToyPolicy
    delays: ClassVar[tuple[str, ...]] = ("policy_delay",)
    policy: ToyPolicy

    def __init__(
        self,
        policy: str | type[ToyPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        *,
        policy_delay: int = 2,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        self.policy_delay = policy_delay
        super().__init__(policy, env, learning_rate, **kwargs)

    def _next_actions(self, batch: Batch) -> th.Tensor:
        features = self.policy.features(batch.next_observations)
        return self.policy.run(features, *self.policy.draw(features))

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        if self._is_due(self.policy_delay):
            features = self.policy.features(batch.observations).detach()
            spread = self.policy.actor(features).chunk(2, dim=1)[1].mean()
            values = self.critic.q_values(features, self.policy.run(features, *self.policy.draw(features)))
            temperature = self.policy.log_temperature.exp()
            yield Loss("actor_loss", "actor", -values.mean() - temperature.detach() * spread)
            yield Loss("temperature_loss", "temperature", temperature * (spread.detach() + 1.0))
