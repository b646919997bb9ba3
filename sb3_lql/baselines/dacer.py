"""Diffusion Actor-Critic with Entropy Regulator."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.diffusion.mixture import fit_mixtures, mixture_entropies
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, variance_preserving_schedule
from sb3_lql.diffusion.temperature import TemperatureAlgorithm, TemperatureArguments
from sb3_lql.engine.algorithm import Batch, Loss
from sb3_lql.engine.optimization import frozen
from sb3_lql.networks.distributional import GaussianCritic

#: Largest magnitude of a standardised return, and of a TD error in typical standard deviations.
LARGEST_SCORE = 3.0
#: Keeps the critics' loss away from divisions by zero.
EPSILON = 0.1
#: Share of a minibatch in the typical standard deviation.
RUNNING_SHARE = 0.005
#: Actions of an observation from which the policy's entropy is estimated, and Gaussians that are fitted to them.
ENTROPY_SAMPLES, ENTROPY_COMPONENTS = 200, 3


class DACER(TemperatureAlgorithm):
    """
    Diffusion Actor-Critic with Entropy Regulator (DACER): the gradient of Q goes through all steps of the denoising
    chain, and exploration has noise whose size follows an estimate of the policy's entropy.

    Critics know returns as Gaussians, of mean q and standard deviation sigma. With ``j`` the target critic of the
    smaller mean at ``(s', a')``, the TD targets are ``y`` of its mean and ``y_z`` of its mean plus ``clip(z, ±3)`` of
    its standard deviations. Each critic descends (sg: without gradient)::

        -(m^2 + 0.1) mean[q sg(y - q) / (sg sigma^2 + 0.1)
                          + sigma ((sg q - y_b)^2 - sg sigma^2) / (sg sigma^3 + 0.1)]

    with ``y_b = q + clip(y_z - q, ±3 m)`` and ``m`` a running mean of sigma. The denoiser descends ``-mean min q(s,
    a_theta)`` with the critics before the TD step, noise included. Actions that are stored or looked at by TD
    targets are ``clip(a + noise_scale alpha z, ±1)``. ``log alpha`` descends ``H + 0.9 d``, with H the mean entropy of
    mixtures of three Gaussians, each fitted to 200 such actions of an observation.

    Paper: https://arxiv.org/abs/2405.15177

    Defaults are the authors' code; the paper has GELU critics, larger networks for Humanoid and more noise in the
    chain. ``noise_scale`` is 0.15 for Humanoid and HalfCheetah there, and in ``hyperparams/dacer.yml``. Their
    evaluation draws its chains; here ``deterministic=True`` has no noise at all. Defects: the temperature takes a step
    of Adam every 10,000 updates, so that alpha can fall by 3% in so many at most, whatever the entropy; and maximising
    Q through the chain leads to one mode. The mixtures are fitted by our own k-means and EM, to observations drawn anew
    from the replay buffer.

    :param noise_scale: standard deviation of the noise on actions over ``alpha``
    :param temperature_interval: estimate the entropy and move ``alpha`` every so many updates, the first one included
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = TemperatureAlgorithm.defaults | dict(
        actor_learning_rate=1e-4,
        final_actor_learning_rate=None,
        n_action_samples=1,
        initial_temperature=3.0,
        temperature_interval=10_000,
        temperature_learning_rate=3e-2,
        clip_noisy_actions=True,
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = {}
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 1.0
    #: Whether the denoiser learns before the TD step, from critics that have not taken it.
    actor_learns_first: ClassVar[bool] = True

    #: The critic, which predicts means and standard deviations.
    critic: GaussianCritic
    #: The critic that targets come from.
    critic_target: GaussianCritic

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        **kwargs: Unpack[TemperatureArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(variance_preserving_schedule(self.n_denoising_steps))

    def _policy_arguments(self) -> dict[str, Any]:
        return super()._policy_arguments() | dict(critic_class=GaussianCritic, acts_with_target=False)

    def _backup(self, batch: Batch, next_actions: th.Tensor) -> th.Tensor:
        """``y`` and ``y_z``, shape (batch, 2)."""
        features = self.critic_target.features(batch.next_observations)
        mean, std = self.critic_target.distributions(features, next_actions).chunk(2, dim=2)
        returns = mean + std * th.randn_like(std).clamp(-LARGEST_SCORE, LARGEST_SCORE)
        lowest = mean.argmin(dim=0, keepdim=True)
        values = (th.gather(kind, 0, lowest).squeeze(0) for kind in (mean, returns))
        return th.cat([self._bootstrap(batch, value) for value in values], dim=1)

    def _estimate(self, batch: Batch) -> th.Tensor:
        """Mean and standard deviation."""
        return self.critic.distributions(self.critic.features(batch.observations), batch.actions.float())

    def _td_loss(self, batch: Batch, estimate: th.Tensor, target: th.Tensor) -> th.Tensor:
        mean, std = estimate.chunk(2, dim=2)
        typical_std = self._follow(std.detach().mean(dim=1, keepdim=True))
        return return_loss(mean, std, target[:, :1], target[:, 1:], typical_std)

    def _follow(self, std: th.Tensor) -> th.Tensor:
        """The typical standard deviation after another minibatch, of which it begins as that of the first."""
        typical = self.critic.typical_std
        return typical.copy_(th.where(typical < 0, std, typical.lerp(std, RUNNING_SHARE)))

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions = self._explore(self.policy.denoise(self.policy.denoiser, features, *self.policy.draw(features)))
        with frozen(self.critic):
            q_values = self.critic.lowest_q_values(features, actions)
        return -q_values.mean()

    def _temperature_step(self) -> Iterator[Loss]:
        # Between updates, since fitting mixtures waits for the device
        self._log("temperature", self.temperature)
        yield from ()

    def _between_updates(self) -> None:
        # After a loss gone wrong there may be no actions that mixtures could be fitted to
        if self._is_due(self.temperature_interval) and self._guard.healthy:
            entropy = self._entropy(self._sample(self.batch_size))
            loss = self._temperature_loss(entropy)
            self._guard.step(self.policy.optimizers[loss.optimizer], loss.value, loss.name)
            self._logger.record_mean("train/entropy", float(entropy))

    @th.no_grad()
    def _entropy(self, batch: Batch) -> th.Tensor:
        """The mean entropy of the policy with its noise, shape ()."""
        self.policy.set_training_mode(False)
        features = self.policy.features(batch.observations)
        rows = features.repeat_interleave(ENTROPY_SAMPLES, dim=0)
        actions = self._explore(self.policy.denoise(self.policy.denoiser, rows, *self.policy.draw(rows)))
        self.policy.set_training_mode(True)
        mixtures = fit_mixtures(actions.view(len(features), ENTROPY_SAMPLES, -1), ENTROPY_COMPONENTS)
        return mixture_entropies(mixtures.weights, mixtures.covariances).mean().to(self.device, th.float32)


def return_loss(
    mean: th.Tensor, std: th.Tensor, target: th.Tensor, target_return: th.Tensor, typical_std: th.Tensor
) -> th.Tensor:
    """
    The critics' loss, as :class:`DACER` writes it; summed over critics.

    :param mean: ``q``, shape (n_critics, batch, 1)
    :param std: ``sigma``, shape (n_critics, batch, 1)
    :param target: ``y``, shape (batch, 1)
    :param target_return: ``y_z``, shape (batch, 1)
    :param typical_std: ``m``, shape (n_critics, 1, 1)
    :return: scalar
    """
    q, sigma = mean.detach(), std.detach()
    bound = LARGEST_SCORE * typical_std
    squared_error = (target_return - q).clamp(-bound, bound).square()
    of_mean = mean * (target - q) / (sigma.square() + EPSILON)
    of_std = std * (squared_error - sigma.square()) / (sigma.pow(3) + EPSILON)
    return -((typical_std.square() + EPSILON) * (of_mean + of_std)).mean(dim=1).sum()
