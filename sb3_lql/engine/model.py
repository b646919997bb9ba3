"""What an algorithm with a Langevin policy is made of: arguments, policy, replay buffer, and how it is saved."""

import warnings
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import get_parameters_by_name
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.collecting.replay import BufferedAlgorithm
from sb3_lql.common.compatibility import (
    check_foreign_arguments,
    check_observation_space,
    check_policy,
    check_policy_kwargs,
    check_wrappers,
)
from sb3_lql.common.device_buffers import check_replay_buffer
from sb3_lql.common.validation import (
    check_action_space,
    check_count,
    check_flag,
    check_off_policy_arguments,
    check_positive,
)
from sb3_lql.langevin.policies import CnnPolicy, LangevinPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.langevin.sampler import LangevinSampler
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.matrices import multiplies_bfloat16_fast

SelfModel = TypeVar("SelfModel", bound="LangevinModel")

#: Updates that ``compile=None`` expects of a ``learn`` before it compiles, which takes the time of a thousand or two.
UPDATES_WORTH_COMPILING = 10_000


class LangevinModel(BufferedAlgorithm):
    """
    Arguments, policy and replay buffer of an algorithm whose policy is a Langevin chain.

    A subclass says which chain (:meth:`_make_sampler`). Arguments that are not listed here are those of SB3's
    ``OffPolicyAlgorithm``.

    :param policy: policy class or its alias
    :param env: environment, or its id
    :param inverse_temperature: ``w`` of the target density exp(w * Q)
    :param n_langevin_steps: ``T``, Langevin steps per noise level
    :param normalize_score: divide every score by its L2 norm (appendix E.2)
    :param reward_scale: factor on rewards inside the update
    :param target_update_interval: update the target critics every so many updates
    :param n_action_samples: chains per action when acting; the action of the highest minimum critic is taken
    :param compile: compile the chain and, on a GPU, replay updates as CUDA graphs; chosen automatically if ``None``
    :param bfloat16_chain: multiply the chain's hidden layers in bfloat16
    :param overlap_updates: make updates while the environments step
    :param use_sde: not supported
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type
    """

    #: Policy classes by name.
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    #: The policy: critic, target and sampler.
    policy: LangevinPolicy
    #: The critic, which is the policy's.
    critic: EnsembleCritic
    #: The critic that targets come from, which is the policy's.
    critic_target: EnsembleCritic
    #: The environments' action space.
    action_space: spaces.Box

    def __new__(cls: type[SelfModel], *args: Any, **kwargs: Any) -> SelfModel:
        """What only other algorithms have is refused with a reason. In the signature it would hide misspelt names."""
        check_foreign_arguments(cls.__name__, kwargs)
        return super().__new__(cls)

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
        check_policy(policy, self.policy_aliases, LangevinPolicy)
        if env is not None:
            env = maybe_make_env(env, off_policy_kwargs.get("verbose", 0))
            check_action_space(env.action_space)
            check_observation_space(env.observation_space)
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

    @staticmethod
    def _wrap_env(env: GymEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's, for ``load`` and ``set_env``: an environment's id serves them as it does the constructor."""
        wrapped = BufferedAlgorithm._wrap_env(maybe_make_env(env, verbose), verbose, monitor_wrapper)
        check_wrappers(wrapped)
        return wrapped

    @abstractmethod
    def _make_sampler(self) -> LangevinSampler:
        """
        :return: the chain that the constructor's arguments describe
        """

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
        check_replay_buffer(self.replay_buffer_class, self.replay_buffer_kwargs, self.n_steps)
        if self.overlap_updates and issubclass(self.replay_buffer_class or ReplayBuffer, HerReplayBuffer):
            raise ValueError(
                "overlap_updates=True does not go with HerReplayBuffer, which asks the environments for rewards while "
                "they are busy: leave it out."
            )
        check_policy_kwargs(self.policy_kwargs, self.use_sde)

    def policy_arguments(self) -> dict[str, Any]:
        """
        :return: ``policy_kwargs``, and what else the policy is made with
        """
        return {name: value for name, value in self.policy_kwargs.items() if name != "use_sde"} | dict(
            sampler=self._make_sampler(),
            n_action_samples=self.n_action_samples,
            bfloat16_chain=self.bfloat16_chain,
        )

    def _setup_model(self) -> None:
        # In place of SB3's, which makes a replay buffer for a model that only acts too, and takes all arguments of the
        # policy from policy_kwargs: what a user reads, compares and saves there is what that user wrote
        self._check_arguments()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._convert_train_freq()
        self._choose_replay_buffer_class()
        if self.env is not None:  # if memory is short, this is the moment to hear of it
            self._provide_replay_buffer()
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            **self.policy_arguments(),
        ).to(self.device)
        self._create_aliases()
        self._set_up_chains()
        if self.bfloat16_chain and not multiplies_bfloat16_fast(self.device):
            warnings.warn(
                f"bfloat16_chain=True makes chains slower on device {str(self.device)!r}: leave it out. It is for GPUs "
                "with bfloat16 instructions.",
                stacklevel=5,
            )
        if self.verbose >= 1 and not self.critic.has_closed_form_gradient:
            print(  # noqa: T201
                "The critic's action-gradient has no closed form here and is left to autograd, uncompiled and slower: "
                "closed forms are known for critics of linear layers with Mish, ReLU, SiLU or Tanh."
            )

    def _create_aliases(self) -> None:
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target
        # Running means and variances of batch normalisation
        self._batch_norm_stats = get_parameters_by_name(self.critic, ["running_"])
        self._batch_norm_stats_target = get_parameters_by_name(self.critic_target, ["running_"])

    def _setup_learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._set_up_chains(self._planned_updates(total_timesteps))
        return super()._setup_learn(total_timesteps, *args, **kwargs)

    def _set_up_chains(self, planned_updates: int = 0) -> None:
        """Let chains be compiled and replayed as ``compile`` has it."""
        chains = self.policy.chains
        chains.compile = planned_updates >= UPDATES_WORTH_COMPILING if self.compile is None else self.compile
        chains.use_cuda_graphs = self.compile is not False

    def _planned_updates(self, total_timesteps: int) -> int:
        """Updates in so many steps; none if that depends on the length of episodes."""
        if self.gradient_steps < 0:
            return total_timesteps
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit == TrainFrequencyUnit.EPISODE:
            return 0
        return total_timesteps // (self.train_freq.frequency * self.n_envs) * self.gradient_steps

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "critic",
            "critic_target",
            "_batch_norm_stats",
            "_batch_norm_stats_target",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
