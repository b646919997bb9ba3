"""A trained agent, the actions that it draws and what they measure, in one folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_lql import algorithms
from sb3_lql.benchmark.bandit.chains import best_of, normal_starts, trajectories
from sb3_lql.benchmark.bandit.landscape import Landscape, learned_landscape, perfect_landscape
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.tempering import actions_of, adapted, temper
from sb3_lql.diffusion.family import DiffusionAlgorithm
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.langevin.sampler import ScoreFunction
from sb3_lql.langevin.tempered_policies import TemperedPolicy

#: The class of each algorithm.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    **{name: entry.cls for name, entry in algorithms.ALGORITHMS.items()},
    "sac": SAC,
}
#: Its printed name.
NAMES = {name: entry.label for name, entry in algorithms.ALGORITHMS.items()} | {"sac": "SAC"}

#: ``w`` at which a Langevin policy is measured besides its own: the paper chooses it from [1, 500] (appendix C.1).
INVERSE_TEMPERATURES = (1, 5, 10, 20, 50, 100, 200, 300, 400, 500)

#: Actions of which a denoising chain's best is measured besides a single one: what most of the paper's rivals act by.
N_CANDIDATES = 32


def draw(model: BaseAlgorithm, n_actions: int, seed: int, score: ScoreFunction | None = None) -> np.ndarray:
    """
    Actions drawn from a_0 ~ N(0, I), or from the uniform particles of a tempered sampler, shape (n_actions, 2).
    ``score`` is what a Langevin chain climbs, by default the gradient of its critics.
    """
    if isinstance(model.policy, TemperedPolicy):
        return actions_of(temper(model.policy.sampler, learned_landscape(model.policy), n_actions, seed))
    actions: np.ndarray = trajectories(model, normal_starts(n_actions, seed), seed, score)[-1]
    return actions


def draw_best(model: DiffusionAlgorithm, n_actions: int, seed: int) -> np.ndarray:
    """Actions as of :func:`draw`, each the best of :data:`N_CANDIDATES` by the minimum critic."""
    candidates = draw(model, n_actions * N_CANDIDATES, seed).reshape(n_actions, N_CANDIDATES, 2)
    return best_of(model.policy, candidates)


def draw_at(
    model: LangevinAlgorithm, inverse_temperature: float, n_actions: int, seed: int, *, perfect: bool = False
) -> np.ndarray:
    """
    Actions as of :func:`draw`, at a ``w`` in place of the agent's own, to which a tempered sampler's steps adapt; with
    a ``perfect`` critic as of :func:`draw_with_perfect_critic`.
    """
    if isinstance(model.policy, TemperedPolicy):
        landscape = perfect_landscape(model) if perfect else learned_landscape(model.policy)
        return _draw_tempered(model.policy, landscape, inverse_temperature, n_actions, seed)
    own = model.inverse_temperature
    model.inverse_temperature = inverse_temperature
    try:
        return draw_with_perfect_critic(model, n_actions, seed) if perfect else draw(model, n_actions, seed)
    finally:
        model.inverse_temperature = own


def measure_at_inverse_temperatures(model: LangevinAlgorithm, n_actions: int, seed: int) -> list[dict[str, Any]]:
    """The measures of actions drawn at each of :data:`INVERSE_TEMPERATURES`."""
    return [{"inverse_temperature": w, **summarize(draw_at(model, w, n_actions, seed))} for w in INVERSE_TEMPERATURES]


def draw_with_perfect_critic(model: LangevinAlgorithm, n_actions: int, seed: int) -> np.ndarray:
    """Actions as of :func:`draw` from the agent's chain on the exact Q, whatever the agent has learned."""
    landscape = perfect_landscape(model)
    if isinstance(model.policy, TemperedPolicy):
        return _draw_tempered(model.policy, landscape, model.policy.sampler.inverse_temperature, n_actions, seed)
    # Without noise conditioning, a sampler's levels are steps of different sizes on one Q
    return draw(
        model, n_actions, seed, lambda actions, level: landscape.score(actions, min(level, landscape.last_level))
    )


def _draw_tempered(
    policy: TemperedPolicy, landscape: Landscape, inverse_temperature: float, n_actions: int, seed: int
) -> np.ndarray:
    sampler = adapted(policy.sampler, landscape, inverse_temperature, seed)
    return actions_of(temper(sampler, landscape, n_actions, seed))


@dataclass(frozen=True)
class Run:
    """
    :param model: the trained agent
    :param samples: the actions drawn from it, shape (n_actions, 2)
    :param summary: what ``summary.json`` holds
    """

    model: BaseAlgorithm
    samples: np.ndarray
    summary: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Run":
        """
        :param folder: the output folder of ``sb3-lql bandit``
        :param device: where its networks are to compute
        :return: its run
        :raises ValueError: if there is no complete run in the folder
        """
        try:
            summary = json.loads((folder / "summary.json").read_text())
            model = ALGORITHMS[summary["algo"]].load(folder / summary["model"], device=device)
            return cls(model, np.load(folder / "samples.npy"), summary)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{folder} holds no complete run of `sb3-lql bandit` ({error!r}): pass the --output-dir of one."
            ) from error

    @property
    def algo(self) -> str:
        """The algorithm's name on the command line."""
        return str(self.summary["algo"])

    @property
    def name(self) -> str:
        """The algorithm's printed name, and its sampler if it is not the algorithm's own."""
        return f"{NAMES[self.algo]}, tempered" if self.is_tempered else NAMES[self.algo]

    @property
    def seed(self) -> int:
        """The seed of training and sampling."""
        return int(self.summary["seed"])

    @property
    def runs_a_chain(self) -> bool:
        """Whether the agent's actions move step by step from an initial one."""
        return isinstance(self.model, ChainAlgorithm) and not self.is_tempered

    @property
    def is_tempered(self) -> bool:
        """Whether the agent's actions are drawn among particles."""
        return isinstance(self.model.policy, TemperedPolicy)

    @property
    def is_langevin(self) -> bool:
        """Whether the agent's actions follow the gradient of its critics."""
        return isinstance(self.model, LangevinAlgorithm)

    @property
    def langevin_model(self) -> LangevinAlgorithm:
        """
        The agent, whose actions must follow the gradient of its critics.

        :raises ValueError: if it is not
        """
        if not isinstance(self.model, LangevinAlgorithm):
            raise ValueError(f"{self.name} runs no Langevin chain: pass runs of LQL and NC-LQL.")
        return self.model
