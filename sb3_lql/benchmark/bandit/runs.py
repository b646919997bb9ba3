"""A trained agent, the actions that it draws and what they measure, in one folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit.chains import normal_starts, run_recorded, trajectories
from sb3_lql.benchmark.bandit.landscape import exact_landscape, noise_scales
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.common.algorithm import LangevinAlgorithm
from sb3_lql.common.policies import LangevinPolicy

#: Class and printed name of each algorithm.
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], str]] = {
    "nclql": (NCLQL, "NC-LQL"),
    "lql": (LQL, "LQL"),
    "sac": (SAC, "SAC"),
}

#: ``w`` at which a Langevin policy is measured besides its own: the paper chooses it from [1, 500] (appendix C.1).
INVERSE_TEMPERATURES = (1, 5, 10, 20, 50, 100, 200, 300, 400, 500)


def draw(model: BaseAlgorithm, n_actions: int, seed: int, inverse_temperature: float | None = None) -> np.ndarray:
    """
    :param model: an agent trained on the bandit
    :param n_actions: number of actions
    :param seed: seed of the draws
    :param inverse_temperature: ``w``, for a Langevin policy that is to use another than its own
    :return: actions drawn from a_0 ~ N(0, I), shape (n_actions, 2)
    """
    with _at_inverse_temperature(model, inverse_temperature):
        actions: np.ndarray = trajectories(model, normal_starts(n_actions, seed), seed)[-1]
        return actions


@th.no_grad()
def draw_with_perfect_critic(policy: LangevinPolicy, n_actions: int, seed: int) -> np.ndarray:
    """
    What the chain itself does, whatever was learned.

    :param policy: the chain's policy
    :param n_actions: number of actions
    :param seed: seed of the draws
    :return: as :func:`draw`, on the exact Q in place of the learned one, shape (n_actions, 2)
    """
    landscape = exact_landscape(noise_scales(policy))

    def score(actions: th.Tensor, level: int) -> th.Tensor:
        return landscape.score(actions, level if policy.sampler.noise_conditioned else landscape.last_level)

    initial = th.as_tensor(policy.scale_action(normal_starts(n_actions, seed)), device=policy.device)
    actions: np.ndarray = policy.unscale_action(run_recorded(policy.sampler, score, initial, seed)[-1].cpu().numpy())
    return actions


def measure_at_inverse_temperatures(model: BaseAlgorithm, n_actions: int, seed: int) -> list[dict[str, Any]]:
    """
    :param model: an agent trained on the bandit
    :param n_actions: number of actions
    :param seed: seed of the draws
    :return: at each of :data:`INVERSE_TEMPERATURES` the :func:`~sb3_lql.benchmark.bandit.measures.summarize` of the
        actions of a Langevin policy; nothing for another policy
    """
    if not isinstance(model, LangevinAlgorithm):
        return []
    return [{"inverse_temperature": w, **summarize(draw(model, n_actions, seed, w))} for w in INVERSE_TEMPERATURES]


@contextmanager
def _at_inverse_temperature(model: BaseAlgorithm, value: float | None) -> Iterator[None]:
    """The model with another ``w``, until the end of the block."""
    if value is None:
        yield
        return
    assert isinstance(model, LangevinAlgorithm)
    own = model.inverse_temperature
    model.inverse_temperature = value
    try:
        yield
    finally:
        model.inverse_temperature = own


@dataclass(frozen=True)
class Run:
    """
    :param model: the trained agent
    :param summary: what ``summary.json`` holds
    """

    model: BaseAlgorithm
    summary: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """
        :param folder: the output folder of ``sb3-lql bandit``
        :return: its run
        :raises ValueError: if there is no run in the folder
        """
        path = folder / "summary.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no summary.json: pass the --output-dir of an `sb3-lql bandit`.")
        summary = json.loads(path.read_text())
        algorithm, _ = ALGORITHMS[summary["algo"]]
        return cls(algorithm.load(folder / summary["model"]), summary)

    @property
    def algo(self) -> str:
        """The algorithm's name on the command line."""
        algo: str = self.summary["algo"]
        return algo

    @property
    def name(self) -> str:
        """The algorithm's printed name."""
        return ALGORITHMS[self.algo][1]

    @property
    def seed(self) -> int:
        """The seed of training and sampling."""
        seed: int = self.summary["seed"]
        return seed

    @property
    def langevin_policy(self) -> LangevinPolicy:
        """
        The agent's policy, which must run Langevin chains.

        :raises ValueError: if it does not
        """
        if not isinstance(self.model.policy, LangevinPolicy):
            raise ValueError(f"{self.name} runs no Langevin chain: pass runs of LQL and NC-LQL.")
        return self.model.policy
