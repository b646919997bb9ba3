"""The algorithms whose policy is a Langevin chain on their critic."""

import math
import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_lql.common.validation import check_count, check_flag, check_number, check_positive
from sb3_lql.engine.algorithm import Batch, ChainAlgorithm
from sb3_lql.engine.arguments import DEFAULTS, SharedArguments
from sb3_lql.langevin.policies import CnnPolicy, LangevinPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.langevin.sampler import LangevinSampler
from sb3_lql.networks.matmul import has_fast_bfloat16

#: Least target entropy for each action coordinate: a distribution narrower than that is a point in float32.
LEAST_ENTROPY = -100.0


class LangevinArguments(SharedArguments, total=False):
    """
    What the algorithms of this family take besides.

    :param inverse_temperature: ``w`` of the target density exp(w * Q); with a normalised score, a factor on the step
        length
    :param target_entropy: that of actions in [-1, 1]^d at which ``inverse_temperature="auto"`` aims, at most the
        uniform law's, ``d log 2``; "auto" for ``-d``
    :param n_langevin_steps: ``T``, Langevin steps per noise level
    :param normalize_score: divide every score by its L2 norm (appendix E.2); ``False`` for Langevin dynamics as it is
        defined. The score is the gradient of the sum of the critics: with two of them, the target density is
        exp(w * (Q_1 + Q_2))
    :param bfloat16_chain: multiply the chain's hidden layers in bfloat16, for GPUs with instructions for it; actions,
        losses and weights stay float32. It is slower on a CPU, and a warning says so
    """

    inverse_temperature: float | str
    target_entropy: float | str
    n_langevin_steps: int
    normalize_score: bool
    bfloat16_chain: bool


class LangevinAlgorithm(ChainAlgorithm):
    """
    Off-policy TD learning of a critic whose Langevin chain is the policy. An algorithm defines the chain
    (:meth:`_make_sampler`).

    :param policy_kwargs: see :class:`~sb3_lql.langevin.policies.LangevinPolicy`
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: Policy classes by name.
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    #: What policy classes derive from.
    policy_base: ClassVar[type[BasePolicy]] = LangevinPolicy
    #: The arguments that are not passed, of :class:`LangevinArguments`.
    defaults: ClassVar[dict[str, Any]] = DEFAULTS | dict(
        reward_scale=0.2,
        inverse_temperature=500.0,
        target_entropy="auto",
        normalize_score=True,
        bfloat16_chain=False,
    )

    #: The policy: critic, target and sampler.
    policy: LangevinPolicy
    # Arguments of the constructor, see LangevinArguments
    target_entropy: float | str
    n_langevin_steps: int
    normalize_score: bool
    bfloat16_chain: bool

    @abstractmethod
    def _make_sampler(self) -> LangevinSampler:
        """
        :return: the chain that the constructor's arguments describe
        """

    def _next_actions(self, batch: Batch) -> th.Tensor:
        """From the chain on the online critics."""
        policy = self.policy
        features = policy.features(batch.next_observations)
        chain = policy.run_chain(features, *policy.draw(features))
        self._log("score_norm", chain.score_norms.mean())
        self._log("next_action_std", chain.actions.std(dim=0, correction=0).mean())
        self._log("next_action_at_bound", (chain.actions.abs() >= 1.0).float().mean())
        return chain.actions

    @property
    def inverse_temperature(self) -> float | str:
        """
        ``w`` of the target density exp(w * Q), as the constructor takes it; it may be changed at any time. What "auto"
        has come to is ``policy.sampler.inverse_temperature``.
        """
        # Stored under its own name, where SB3's save and load look for it
        value: float | str = vars(self)["inverse_temperature"]
        return value

    @inverse_temperature.setter
    def inverse_temperature(self, value: float | str) -> None:
        first = self._first_inverse_temperature(value)
        if hasattr(self, "policy"):
            self.policy.sampler.inverse_temperature = first
        vars(self)["inverse_temperature"] = value

    def _first_inverse_temperature(self, value: float | str) -> float:
        """
        The number for which the argument stands, at first: a ``TypeError`` if it is neither a number nor a name that
        the algorithm knows, a ``ValueError`` if it is out of range.
        """
        return check_positive("inverse_temperature", value)

    def _entropy_wanted(self) -> float:
        """``target_entropy``, of actions in [-1, 1]^d; "auto" stands for ``-d``, as in SAC."""
        action_dim = get_action_dim(self.action_space)
        if isinstance(self.target_entropy, str):
            if self.target_entropy != "auto":
                raise ValueError(f"target_entropy={self.target_entropy!r} is no number: pass one, or 'auto'.")
            return -float(action_dim)
        low, high = LEAST_ENTROPY * action_dim, math.log(2.0) * action_dim
        return check_number("target_entropy", self.target_entropy, low, high)

    def _policy_arguments(self) -> dict[str, Any]:
        own = dict(sampler=self._make_sampler(), bfloat16_chain=self.bfloat16_chain)
        return super()._policy_arguments() | own

    def _check_arguments(self) -> None:
        self._entropy_wanted()
        self._first_inverse_temperature(self.inverse_temperature)
        check_count("n_langevin_steps", self.n_langevin_steps)
        check_flag("normalize_score", self.normalize_score)
        check_flag("bfloat16_chain", self.bfloat16_chain)
        super()._check_arguments()

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.bfloat16_chain and not has_fast_bfloat16(self.device):
            warnings.warn(
                f"bfloat16_chain=True makes chains slower on device {str(self.device)!r}: leave it out. It is for GPUs "
                "with bfloat16 instructions.",
                stacklevel=4,
            )
        if self.verbose >= 1 and not self.critic.has_closed_form_gradient:
            print(  # noqa: T201
                "The critic's action-gradient has no closed form here and is left to autograd, uncompiled and slower: "
                "closed forms are known for critics of linear layers with Mish, ReLU, SiLU or Tanh."
            )
