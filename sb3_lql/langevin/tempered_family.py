"""The algorithms of this family that can draw from exp(w Q) / Z itself: learned temperature, soft values, a density."""

import math
from typing import Any, ClassVar, cast

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_lql.common.scaling import center_and_half_range
from sb3_lql.common.validation import check_count, check_flag, check_positive
from sb3_lql.engine.algorithm import Batch, ChainAlgorithm
from sb3_lql.engine.policy import ChainPolicy
from sb3_lql.engine.values import lowest_q_value
from sb3_lql.langevin.family import LangevinAlgorithm, LangevinArguments
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.tempered_policies import TemperedCnnPolicy, TemperedMultiInputPolicy, TemperedPolicy
from sb3_lql.langevin.tempered_sampler import TemperedChain, TemperedSampler

#: Policy classes by name, of the tempered sampler.
TEMPERED_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": TemperedPolicy,
    "CnnPolicy": TemperedCnnPolicy,
    "MultiInputPolicy": TemperedMultiInputPolicy,
}


class TemperedArguments(LangevinArguments, total=False):
    """
    What algorithms that know the tempered sampler take besides.

    :param sampler: "langevin", or "tempered", to which ``normalize_score`` and Langevin steps mean nothing
    :param inverse_temperature: ``w`` of the target density exp(w * Q); with a normalised score, a factor on the step
        length. With the tempered sampler, "auto" learns it, from 1, and "auto_10" from 10
    :param n_particles: particles of the tempered sampler for each action
    :param n_rungs: inverse temperatures through which they rise
    :param soft_backup: add ``H(pi(.|s')) / w`` to the value of a next state, by the tempered sampler's estimate
    """

    sampler: str
    n_particles: int
    n_rungs: int
    soft_backup: bool


class TemperedAlgorithm(LangevinAlgorithm):
    """
    A Langevin algorithm that can draw actions by sequential Monte Carlo instead, from exp(w * min_k Q_k(s, .)) / Z(s)
    (:class:`~sb3_lql.langevin.tempered_sampler.TemperedSampler`). Its estimate of the entropy lets ``w`` be learned and
    values be soft, and its estimate of Z gives actions a density.

    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: What policy classes derive from: there is one for each sampler.
    policy_base: ClassVar[type[BasePolicy]] = ChainPolicy  # type: ignore[type-abstract]
    #: The arguments that are not passed, of :class:`TemperedArguments`.
    defaults: ClassVar[dict[str, Any]] = LangevinAlgorithm.defaults | dict(
        sampler="langevin", n_particles=16, n_rungs=20, soft_backup=False
    )

    # Arguments of the constructor, see TemperedArguments
    sampler: str
    n_particles: int
    n_rungs: int
    soft_backup: bool

    # An update

    def _next_actions(self, batch: Batch) -> th.Tensor:
        """One particle of each row, on the online critics; what the sampler learns, it learns here."""
        if not self.is_tempered:
            return super()._next_actions(batch)
        policy = self._tempered_policy
        features = policy.features(batch.next_observations)
        chain = self._chain = policy.run_chain(features, *policy.draw(features))
        self._log_chain(chain)
        policy.sampler.target_entropy = self._entropy_to_keep()
        policy.sampler.adapt(chain)
        return chain.actions

    def _backup(self, batch: Batch, next_actions: th.Tensor) -> th.Tensor:
        """
        ``reward_scale * r + gamma * (E[min_k Q_target_k(s', .)] + H(pi(.|s')) / w)``, the last term with
        ``soft_backup``.

        The mean over all particles is a quieter target than the value of one. ``E[Q] + H / w = log(Z) / w``, with Z the
        integral of exp(w * Q) over [-1, 1]^d, is the soft value.
        """
        if not self.is_tempered:
            return super()._backup(batch, next_actions)
        chain, critic = vars(self).pop("_chain"), self.critic_target
        features = critic.features(batch.next_observations).repeat_interleave(chain.particles.shape[1], dim=0)
        q_values = critic.lowest_q_values(features, chain.particles.flatten(0, 1))
        values = (chain.log_weights.exp() * q_values.view_as(chain.log_weights)).sum(dim=1, keepdim=True)
        if self.soft_backup:
            values = values + chain.entropy[:, None] / chain.inverse_temperature
        return self._bootstrap(batch, values)

    def _log_chain(self, chain: TemperedChain) -> None:
        """Before the sampler adapts."""
        self._log("inverse_temperature", chain.inverse_temperature)
        self._log("entropy", chain.entropy.mean())
        self._log("divergence", chain.divergence.mean())
        self._log("log_z", chain.log_z.mean())
        self._log("acceptance", chain.acceptance.mean())
        self._log("effective_share", chain.effective_share.mean())
        self._log("next_action_std", chain.actions.std(dim=0, correction=0).mean())

    # What the policy's law is

    def log_prob(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        *,
        n_particles: int = 256,
        environment_units: bool = False,
    ) -> np.ndarray:
        """
        ``w * min_k Q_k(s, a) - log Z(s)``, the density with which an action is drawn. ``log Z`` is estimated anew at
        each call: its exponential has no bias, and its error falls with the root of ``n_particles``. In one or two
        dimensions it is a few hundredths; in many, look at how much two calls differ.

        It is the density of one sample, not of the best of ``n_action_samples``.

        :param observation: one observation or a batch, as for ``predict``
        :param action: as many actions, within the action space's own bounds
        :param n_particles: particles for each observation
        :param environment_units: of actions in the action space's bounds; by default of actions scaled to [-1, 1]^d
        :return: logarithms of densities, of shape (batch,), or of shape () for one observation
        :raises ValueError: without ``sampler="tempered"``, whose law alone is known; and if actions have another shape,
            lie out of bounds, or are not as many as observations
        """
        chain = self._estimate_law(observation, n_particles)
        w_q = chain.inverse_temperature.item() * lowest_q_value(self.policy, observation, action)
        log_z = chain.log_z.cpu().numpy().reshape(np.shape(w_q)) + chain.actions.shape[1] * math.log(2.0)
        log_density: np.ndarray = w_q - log_z - self._log_volume(environment_units)
        return log_density

    def entropy(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        *,
        n_particles: int = 256,
        environment_units: bool = False,
    ) -> np.ndarray:
        """
        ``log Z(s) - w * E[Q]``, the differential entropy of the policy, estimated anew at each call as in
        :meth:`log_prob`.

        :param observation: one observation or a batch, as for ``predict``
        :param n_particles: particles for each observation
        :param environment_units: of actions in the action space's bounds; by default of actions scaled to [-1, 1]^d
        :return: entropies in nats, of shape (batch,), or of shape () for one observation
        :raises ValueError: without ``sampler="tempered"``, whose law alone is known
        """
        entropies = self._estimate_law(observation, n_particles).entropy.cpu().numpy()
        _, vectorized = self.policy.obs_to_tensor(observation)
        entropies = entropies + self._log_volume(environment_units)
        return entropies if vectorized else entropies.squeeze(0)

    def _estimate_law(self, observation: np.ndarray | dict[str, np.ndarray], n_particles: int) -> TemperedChain:
        check_count("n_particles", n_particles, low=2)
        if not self.is_tempered:
            raise ValueError(f"sampler={self.sampler!r} has no known density: only sampler='tempered' has one.")
        policy = self._tempered_policy
        policy.set_training_mode(False)
        with th.no_grad():
            return policy.estimate(policy.features(policy.obs_to_tensor(observation)[0]), n_particles)

    def _log_volume(self, environment_units: bool) -> float:
        """The logarithm of how much larger the action space is than [-1, 1]^d, on request."""
        check_flag("environment_units", environment_units)
        return float(np.log(center_and_half_range(self.action_space)[1]).sum()) if environment_units else 0.0

    # Construction

    @property
    def is_tempered(self) -> bool:
        """Whether the tempered sampler draws actions."""
        return self.sampler == "tempered"

    @property
    def _tempered_policy(self) -> TemperedPolicy:
        return cast(TemperedPolicy, self.policy)

    def _entropy_to_keep(self) -> float | None:
        """What a learned ``w`` aims at."""
        return self._entropy_wanted() if isinstance(self.inverse_temperature, str) else None

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self._entropy_to_keep(), self.soft_backup

    def _aliases(self) -> dict[str, type[BasePolicy]]:
        return TEMPERED_ALIASES if self.is_tempered else self.policy_aliases

    def _first_inverse_temperature(self, value: float | str) -> float:
        if not isinstance(value, str):
            return super()._first_inverse_temperature(value)
        name, _, number = value.partition("_")
        if name != "auto":
            raise TypeError(f"inverse_temperature={value!r} must be a number, 'auto', or 'auto_10' to start at 10.")
        if not self.is_tempered:
            raise ValueError(
                f"inverse_temperature={value!r} needs an estimate of the entropy: pass sampler='tempered', or a number."
            )
        try:
            return check_positive("inverse_temperature", float(number)) if number else 1.0
        except ValueError as error:
            raise ValueError(f"inverse_temperature={value!r} starts at no positive number: pass 'auto_10'.") from error

    def _policy_arguments(self) -> dict[str, Any]:
        if not self.is_tempered:
            return super()._policy_arguments()
        w = self._first_inverse_temperature(self.inverse_temperature)
        action_dim = get_action_dim(self.action_space)
        sampler = TemperedSampler(action_dim, self.n_rungs, self.n_particles, w, self._entropy_to_keep())
        return ChainAlgorithm._policy_arguments(self) | dict(sampler=sampler)

    def _check_arguments(self) -> None:
        if self.sampler not in ("langevin", "tempered"):
            raise ValueError(f"sampler={self.sampler!r} is unknown: pass 'langevin' or 'tempered'.")
        check_count("n_particles", self.n_particles, low=2)
        check_count("n_rungs", self.n_rungs)
        check_flag("soft_backup", self.soft_backup)
        if not self.is_tempered and self.soft_backup:
            raise ValueError("soft_backup=True needs an estimate of the entropy: pass sampler='tempered'.")
        if self.is_tempered and self.bfloat16_chain:
            raise ValueError("bfloat16_chain=True does not go with sampler='tempered': leave it out.")
        kind = TemperedPolicy if self.is_tempered else LangevinPolicy
        if not issubclass(self.policy_class, kind):
            raise ValueError(
                f"policy={self.policy_class.__name__} does not derive from {kind.__name__}, which "
                f"sampler={self.sampler!r} needs: pass 'MlpPolicy', or such a class."
            )
        super()._check_arguments()
