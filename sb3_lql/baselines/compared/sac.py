"""SAC as the paper very likely ran it."""

import math
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.distributions import DiagGaussianDistribution, SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.sac.policies import Actor, CnnPolicy, MultiInputPolicy, SACPolicy
from torch import nn

from sb3_lql.common.validation import check_positive
from sb3_lql.networks.layers import truncated_normal

#: Largest logarithm of the actor's standard deviation.
LARGEST_LOG_STD = 0.5


class UncorrectedGaussian(SquashedDiagGaussianDistribution):
    """A squashed Gaussian with the log-density of the Gaussian before the squashing."""

    def log_prob(self, actions: th.Tensor, gaussian_actions: th.Tensor | None = None) -> th.Tensor:
        """
        :param actions: not used
        :param gaussian_actions: those before the squashing, shape (batch, action_dim)
        :return: shape (batch,)
        """
        assert gaussian_actions is not None
        return DiagGaussianDistribution.log_prob(self, gaussian_actions)


class ComparedActor(Actor):
    """SB3's actor with that distribution, and a standard deviation of at most e^0.5."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.action_dist: Any = UncorrectedGaussian(get_action_dim(self.action_space))

    def get_action_dist_params(self, obs: Any) -> tuple[th.Tensor, th.Tensor, dict[str, th.Tensor]]:
        """SB3's mean and log of the standard deviation."""
        mean, log_std, kwargs = super().get_action_dist_params(obs)
        return mean, log_std.clamp(max=LARGEST_LOG_STD), kwargs


class ComparedSACPolicy(SACPolicy):
    """SB3's policy with that actor, three GELU layers of 256, and weights that begin as a truncated normal."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        own: dict[str, Any] = dict(net_arch=[256] * 3, activation_fn=nn.GELU)
        super().__init__(observation_space, action_space, lr_schedule, **own | kwargs)
        self.actor.apply(truncated_normal)
        self.critic.apply(truncated_normal)
        self.critic_target.load_state_dict(self.critic.state_dict())

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> ComparedActor:
        """SB3's ``make_actor``."""
        return ComparedActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)


class ComparedCnnPolicy(ComparedSACPolicy, CnnPolicy):
    """That for images."""


class ComparedMultiInputPolicy(ComparedSACPolicy, MultiInputPolicy):
    """That for dictionary observations."""


class ScaledRewards:
    """A replay buffer whose minibatches have scaled rewards."""

    def __init__(self, buffer: ReplayBuffer, scale: float) -> None:
        self.buffer, self.scale = buffer, scale

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """SB3's ``sample``."""
        batch = self.buffer.sample(*args, **kwargs)
        return batch._replace(rewards=self.scale * batch.rewards)


class ComparedSAC(SAC):
    """
    SB3's SAC as the paper very likely ran it. *Defect:* the log-density of an action is that of the Gaussian before
    ``tanh``, without the correction for it; so the temperature sets the spread before ``tanh``, to a standard deviation
    of 0.089. For a comparison that is fair to SAC take ``stable_baselines3.SAC``.

    Besides, the temperature begins at e, rewards are scaled by 0.2, the actor's standard deviation is at most e^0.5,
    and networks have three layers of 256 GELU units that begin as a truncated normal. SB3's factor of one half in the
    critics' loss stays, which Adam does not notice.

    :param policy: as of ``stable_baselines3.SAC``
    :param env: likewise
    :param learning_rate: likewise
    :param reward_scale: factor on rewards inside the update
    :param ent_coef: as of ``stable_baselines3.SAC``
    :param kwargs: further arguments of ``stable_baselines3.SAC``
    :raises ValueError: for a ``reward_scale`` that is not positive
    """

    #: Policy classes by name.
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ComparedSACPolicy,
        "CnnPolicy": ComparedCnnPolicy,
        "MultiInputPolicy": ComparedMultiInputPolicy,
    }
    #: The environments' action space.
    action_space: spaces.Box

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        *,
        reward_scale: float = 0.2,
        ent_coef: str | float = f"auto_{math.e}",
        **kwargs: Any,
    ) -> None:
        check_positive("reward_scale", reward_scale)
        self.reward_scale = reward_scale
        super().__init__(policy, env, learning_rate, ent_coef=ent_coef, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """SB3's ``train``, on scaled rewards."""
        buffer = self.replay_buffer
        assert buffer is not None
        self.replay_buffer = ScaledRewards(buffer, self.reward_scale)  # type: ignore[assignment]
        try:
            super().train(gradient_steps, batch_size)
        finally:
            self.replay_buffer = buffer
