"""Langevin Q-Learning."""

from typing import Any

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_lql.common.validation import check_positive
from sb3_lql.engine.algorithm import LangevinAlgorithm
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import LangevinSampler, geometric_schedule


class LQL(LangevinAlgorithm):
    """
    Langevin Q-Learning (LQL): actions are drawn by Langevin dynamics on the critic's action-gradient, which aims at the
    Boltzmann law exp(w * Q(s, .)).

    Paper: https://arxiv.org/abs/2602.07873 (definition 1, equation 6, algorithm 5)

    :param policy: policy class or its alias: MlpPolicy, CnnPolicy, MultiInputPolicy
    :param env: environment to learn from, or its id; ``None`` to load a trained model
    :param learning_rate: learning rate of the critics, or a schedule of the remaining progress (from 1 to 0)
    :param buffer_size: transitions in the replay buffer
    :param learning_starts: steps of uniformly random actions before learning starts
    :param batch_size: transitions per update
    :param tau: share of the online critics in a target update, in [0, 1]
    :param gamma: discount factor, in [0, 1]
    :param train_freq: update every ``train_freq`` steps, or a tuple such as (5, "step") or (2, "episode")
    :param gradient_steps: updates after each rollout; -1 for as many as environment steps were made
    :param action_noise: noise added to the actions when collecting
    :param replay_buffer_class: e.g. ``HerReplayBuffer``; taken as it is. If ``None``, SB3's choice with observations in
        float32, of which ``ReplayBuffer`` is the way back. ``DeviceReplayBuffer`` lives where the networks do
    :param replay_buffer_kwargs: keyword arguments of the replay buffer
    :param optimize_memory_usage: SB3's memory-efficient replay buffer
    :param n_steps: steps of n-step returns
    :param inverse_temperature: ``w``; with a normalised score, a factor on the step length
    :param langevin_step_size: ``eps``; a pair (first, last) gives the chain a geometric schedule of step sizes
    :param n_langevin_steps: ``T``, steps of the chain
    :param normalize_score: divide every score by its L2 norm (appendix E.2); ``False`` for definition 1 as it stands.
        The score is the gradient of the sum of the critics: the law is then exp(w * (Q_1 + Q_2)) with two of them
    :param reward_scale: factor on rewards inside the update
    :param target_update_interval: update the target critics every so many updates
    :param stats_window_size: episodes in the logged rollout statistics
    :param tensorboard_log: folder for TensorBoard; none if ``None``
    :param policy_kwargs: see :class:`~sb3_lql.langevin.policies.LangevinPolicy`
    :param verbose: 0 for no output, 1 for info, 2 for debug messages
    :param seed: seed of the random generators
    :param device: "cpu", "cuda", ... or "auto"
    :param _init_setup_model: whether to build the network at construction
    :param n_action_samples: chains per action when acting and evaluating, of which the best by the minimum critic is
        taken; the chain's cost grows with it, the training target always uses one
    :param compile: ``True`` compiles the chain, which takes about a minute; ``None`` does so where a ``learn`` of at
        least 10,000 updates pays it back. On a GPU both replay updates and actions as CUDA graphs. ``False`` does
        neither
    :param bfloat16_chain: multiply the chain's hidden layers in bfloat16, for GPUs with instructions for it; actions,
        losses and weights stay float32. CPUs are slower at it, which a warning says
    :param overlap_updates: make the updates after a rollout while the environments take their next step, whose action
        is then chosen before those updates; pays with ``SubprocVecEnv``
    :param use_sde: refused, as there is no actor to perturb
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type
    """

    def __init__(
        self,
        policy: str | type[LangevinPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        inverse_temperature: float = 500.0,
        langevin_step_size: float | tuple[float, float] = 1e-4,
        n_langevin_steps: int = 20,
        normalize_score: bool = True,
        reward_scale: float = 0.2,
        target_update_interval: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        n_action_samples: int = 1,
        compile: bool | None = None,
        bfloat16_chain: bool = False,
        overlap_updates: bool = False,
        use_sde: bool = False,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            inverse_temperature=inverse_temperature,
            n_langevin_steps=n_langevin_steps,
            normalize_score=normalize_score,
            reward_scale=reward_scale,
            target_update_interval=target_update_interval,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            n_action_samples=n_action_samples,
            compile=compile,
            bfloat16_chain=bfloat16_chain,
            overlap_updates=overlap_updates,
            use_sde=use_sde,
        )
        self.langevin_step_size = langevin_step_size
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if isinstance(self.langevin_step_size, (tuple, list)):  # a list after load: SB3 saves tuples as JSON
            if len(self.langevin_step_size) != 2:
                raise ValueError(f"langevin_step_size={self.langevin_step_size!r} must be a number or (first, last).")
            for value in self.langevin_step_size:
                check_positive("langevin_step_size", value)
        else:
            check_positive("langevin_step_size", self.langevin_step_size)

    def _make_sampler(self) -> LangevinSampler:
        # A schedule is one step at each of T step sizes; without one, T steps at the only step size
        if isinstance(self.langevin_step_size, (tuple, list)):
            step_sizes, n_steps = geometric_schedule(*self.langevin_step_size, self.n_langevin_steps), 1
        else:
            step_sizes, n_steps = th.tensor([self.langevin_step_size]), self.n_langevin_steps
        return LangevinSampler(
            step_sizes,
            n_steps,
            inverse_temperature=self.inverse_temperature,
            normalize_score=self.normalize_score,
        )
