"""What updating, running a chain and acting cost, beside the obvious way, SAC and bare arithmetic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from sb3_lql.algorithms import ALGORITHMS
from sb3_lql.benchmark.authors import AuthorsNCLQL
from sb3_lql.benchmark.naive import NaiveUpdate
from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.common.acceleration import GraphedFunction, compiled
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.langevin.sampler import LangevinSampler
from sb3_lql.networks.critics import EnsembleCritic

#: Sizes of observations and actions of the paper's tasks, in v4.
SIZES: dict[str, tuple[int, int]] = {
    "halfcheetah": (17, 6),
    "walker2d": (17, 6),
    "humanoid": (376, 17),
    "hopper": (11, 3),
    "ant": (27, 8),
    "swimmer": (8, 2),
    "pusher": (23, 7),
    "reacher": (11, 2),
    "inverteddoublependulum": (11, 1),
}

#: Transitions in the replay buffers.
N_TRANSITIONS = 2_000
#: Calls of each entry after its first that are not measured: compilers and allocators have settled by then.
N_WARM_UPS = 5
#: Observations that ``predict`` gets at once: one environment, and the paper's five.
N_OBSERVATIONS = (1, 5)
#: Observations that ``predict(deterministic=True)`` gets at once.
N_DETERMINISTIC = (1, 20)
#: Iterations of one call: what surrounds them in ``learn`` takes a part of each.
ITERATIONS_PER_CALL = 10
#: Updates of one call where algorithms are compared: some update their actor at every other one.
UPDATES_PER_CALL = 2


class RandomEnv(gym.Env[np.ndarray, np.ndarray]):
    """Random observations (float64, as MuJoCo's) and rewards in a task's spaces; episodes take 100 steps on average."""

    def __init__(self, observation_dim: int, action_dim: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_dim,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    def _observe(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A random observation."""
        super().reset(seed=seed, options=options)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """A random observation and reward; one step in a hundred ends the episode."""
        return self._observe(), float(self.np_random.standard_normal()), self.np_random.random() < 0.01, False, {}


class Entry(NamedTuple):
    """One thing that is timed."""

    #: Entries of one group do the same work; the group's first is the others' reference.
    group: str
    name: str
    call: Callable[[], object]
    #: Parts of a call, of which the time is that of one.
    n_parts: int = 1


@dataclass(frozen=True)
class Timing:
    """How long an entry took."""

    group: str
    name: str
    #: Seconds of the first call, in which the library compiles.
    first_call_s: float
    #: Milliseconds of each measured call.
    calls_ms: list[float]

    @property
    def median_ms(self) -> float:
        """Median of the measured calls."""
        return float(np.median(self.calls_ms))


def make_model(size: str, algo: str, device: str, compiled: bool) -> ChainAlgorithm:
    """A model with the default hyperparameters, whose replay buffer holds random transitions."""
    model: ChainAlgorithm = _filled(ALGORITHMS[algo].cls, size, device, compile=compiled)
    return model


def make_sac(size: str, device: str) -> SAC:
    """SB3's SAC with networks like ours, whose replay buffer holds random transitions."""
    model: SAC = _filled(SAC, size, device, policy_kwargs=dict(net_arch=[256, 256, 256], activation_fn=nn.Mish))
    return model


def _filled(model_class: Any, size: str, device: str, **kwargs: Any) -> Any:
    """A model that has collected random transitions and not learned yet."""
    arguments = dict(buffer_size=10_000, learning_starts=N_TRANSITIONS, seed=0, device=device) | kwargs
    model = model_class("MlpPolicy", RandomEnv(*SIZES[size]), **arguments)
    return model.learn(N_TRANSITIONS, log_interval=None)


def bare_products(model: LangevinAlgorithm, batch_size: int) -> Callable[[], th.Tensor]:
    """
    The matrix products in the action that a chain cannot do without: forward to the last hidden layer and back. The
    function returned does them for the model's sizes and number of steps.
    """
    n_critics, sizes = model.critic.n_critics, [model.policy.action_dim, *model.policy.net_arch]
    weights = [
        th.randn(n_critics, size_in, size_out, device=model.device) / size_in**0.5
        for size_in, size_out in pairwise(sizes)
    ]
    actions = th.randn(n_critics, batch_size, model.policy.action_dim, device=model.device)

    there_and_back = [*weights, *(weight.mT for weight in reversed(weights))]

    def products(actions: th.Tensor) -> th.Tensor:
        for _ in range(model.policy.sampler.chain_length):
            x = actions
            for weight in there_and_back:
                x = th.bmm(x, weight)
        return x

    # On a GPU they are replayed as chains are: launches are not what they are measured for
    return partial(GraphedFunction(products, lambda: weights, tuple), actions)


def make_entries(
    size: str, algo: str, device: str, batch_size: int, compiled: bool = True, authors: Path | None = None
) -> list[Entry]:
    """
    All that is timed of a Langevin algorithm: groups together, and in each the reference first. With a clone of the
    code of NC-LQL's ``authors``, that too.
    """
    kinds = {"eager": False} | ({"compiled": True} if compiled else {})
    ours = {name: cast(LangevinAlgorithm, make_model(size, algo, device, kind)) for name, kind in kinds.items()}
    sac = make_sac(size, device)
    theirs = {} if authors is None else {"the authors' JAX": AuthorsNCLQL(authors, *SIZES[size], batch_size)}
    naive = NaiveUpdate(ours["eager"])
    # SAC's is SB3's own buffer, whatever the library's models use
    buffer = sac.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    obs = th.randn(batch_size, SIZES[size][0], device=device)
    entries = [
        Entry("update", "naive", lambda: naive.update(buffer.sample(batch_size))),
        *(Entry("update", name, partial(model.train, 1, batch_size)) for name, model in ours.items()),
        *(Entry("update", name, code.update) for name, code in theirs.items()),
        Entry("update", "SAC", partial(sac.train, 1, batch_size)),
        Entry("chain", "bare matrix products", bare_products(ours["eager"], batch_size)),
        Entry("chain", "naive", lambda: naive.chain(obs, *naive.draw(batch_size))),
        *(
            Entry("chain", "autograd, compiled", _autograd_chain(model, obs))
            for model in ours.values()
            if model.compile
        ),
        *(Entry("chain", name, _chain(model, obs)) for name, model in ours.items()),
    ]
    ours_and_sac: dict[str, Any] = {**ours, "SAC": sac}
    entries += [
        Entry("iteration", name, partial(_iterate, model), ITERATIONS_PER_CALL) for name, model in ours_and_sac.items()
    ]
    entries += [
        Entry(f"deterministic {n}", name, partial(model.predict, _observations(size, n), deterministic=True))
        for n in N_DETERMINISTIC
        for name, model in {"eager": ours["eager"], "SAC": sac}.items()
    ]
    return entries + _predictions(size, {"naive": naive, **ours, **theirs, "SAC": sac})


def _predictions(size: str, actors: dict[str, Any]) -> list[Entry]:
    """The ``predict`` of each, at one observation and at several."""
    return [
        Entry(f"predict {n}", name, partial(actor.predict, _observations(size, n)))
        for n in N_OBSERVATIONS
        for name, actor in actors.items()
    ]


def _observations(size: str, n_observations: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_observations, SIZES[size][0]))


def _iterate(model: Any) -> None:
    """So many times a step of the environment and an update."""
    model.learn(ITERATIONS_PER_CALL, reset_num_timesteps=False, log_interval=None)


def make_comparison(models: dict[str, ChainAlgorithm], sac: SAC, size: str, batch_size: int) -> list[Entry]:
    """Updates and predictions of several algorithms, by their names, and of SAC; the first is the reference."""
    named: dict[str, Any] = {**models, "SAC": sac}
    updates = [
        Entry("update", name, partial(model.train, UPDATES_PER_CALL, batch_size), UPDATES_PER_CALL)
        for name, model in named.items()
    ]
    return updates + _predictions(size, named)


def parameters_table(counts: dict[str, int]) -> str:
    """The counts, and how many times that of the first they are, as a Markdown table."""
    first = next(iter(counts.values()))
    rows = [[name, f"{count:,}", f"{count / first:.3f}"] for name, count in counts.items()]
    return markdown_table(["algorithm", "parameters", "times the first"], rows)


def _chain(model: LangevinAlgorithm, obs: th.Tensor) -> Callable[[], th.Tensor]:
    features = model.critic.features(obs)

    @th.no_grad()
    def chain() -> th.Tensor:
        return model.policy.act(features, *model.policy.draw(features))

    return chain


def _autograd_chain(model: LangevinAlgorithm, obs: th.Tensor) -> Callable[[], th.Tensor]:
    """The chain by autograd, compiled: what the closed form of the score is there for."""

    def run(
        sampler: LangevinSampler, critic: EnsembleCritic, features: th.Tensor, actions: th.Tensor, noise: th.Tensor
    ) -> th.Tensor:
        def score(actions: th.Tensor, level: int) -> th.Tensor:
            noise_level = level if sampler.noise_conditioned else None
            gradient: th.Tensor = th.func.grad(lambda a: critic.q_values(features, a, noise_level).sum())(actions)
            return gradient

        ends: th.Tensor = sampler(score, actions, noise).actions
        return ends

    policy = model.policy
    run = compiled(run, batch_dims=dict(features=0, actions=0, noise=1))
    graphed = GraphedFunction(partial(run, policy.sampler, policy.critic), policy.parameters, tuple)
    features = policy.critic.features(obs)

    @th.no_grad()
    def chain() -> th.Tensor:
        ends: th.Tensor = graphed(features, *policy.draw(features))
        return ends

    return chain


def measure(entries: list[Entry], repetitions: int, device: str) -> list[Timing]:
    """Time all entries in turns, so that a machine that slows down or speeds up does so for all of them."""
    first_calls = [_seconds(entry.call, device) for entry in entries]
    rounds = [
        [_seconds(entry.call, device) / entry.n_parts for entry in entries] for _ in range(N_WARM_UPS + repetitions)
    ]
    calls_ms = 1e3 * np.array(rounds[N_WARM_UPS:])
    return [
        Timing(entry.group, entry.name, first_call, calls_ms[:, column].tolist())
        for column, (entry, first_call) in enumerate(zip(entries, first_calls, strict=True))
    ]


def _seconds(call: Callable[[], object], device: str) -> float:
    _wait_for(device)
    start = time.perf_counter()
    call()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        th.cuda.synchronize()


def summarize(timings: list[Timing]) -> list[dict[str, Any]]:
    """
    For each timing its median and quartiles in milliseconds, how many times as long as its group's first and as its
    group's SAC it takes (None where there is no SAC), and the seconds of its first call.
    """
    references: dict[str, float] = {}
    sac: dict[str, float] = {}
    for timing in timings:
        references.setdefault(timing.group, timing.median_ms)
        if timing.name == "SAC":
            sac[timing.group] = timing.median_ms
    return [
        {
            "group": timing.group,
            "name": timing.name,
            "median_ms": timing.median_ms,
            "quartiles_ms": np.quantile(timing.calls_ms, [0.25, 0.75]).tolist(),
            "ratio_to_reference": timing.median_ms / references[timing.group],
            "ratio_to_sac": timing.median_ms / sac[timing.group] if timing.group in sac else None,
            "first_call_s": timing.first_call_s,
        }
        for timing in timings
    ]


def speed_table(figures: list[dict[str, Any]]) -> str:
    """The figures of one size, from :func:`summarize`, as a Markdown table."""
    rows = []
    for entry in figures:
        columns = [entry[key] for key in ("median_ms", "ratio_to_reference", "ratio_to_sac", "first_call_s")]
        cells = ["" if value is None else f"{value:.2f}" for value in columns]
        rows.append([f"{entry['group']}: {entry['name']}", *cells])
    return markdown_table(["entry", "median, ms", "times its reference", "times SAC", "first call, s"], rows)
