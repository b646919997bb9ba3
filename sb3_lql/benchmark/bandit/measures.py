"""What a set of actions says of the policy that drew them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.envs.multimodal_bandit import HIGH_MODES, MODES, reward

#: An action within this distance of a mode's centre counts as being of that mode (appendix C.2).
MODE_RADIUS = 0.3


def summarize(samples: np.ndarray) -> dict[str, Any]:
    """
    The measures of table 4 and figure 4: the share of actions within 0.3 of each high mode, their ``sum``, the share
    within 0.3 of a ``low`` mode, and mean and standard deviation of the reward.
    """
    near = np.linalg.norm(samples[:, None] - MODES, axis=-1) <= MODE_RADIUS
    shares = near.mean(axis=0)
    high = {name: float(shares[index]) for name, index in HIGH_MODES.items()}
    low = np.delete(shares, list(HIGH_MODES.values()))
    rewards = reward(samples)
    return {
        **high,
        "sum": float(sum(high.values())),
        "low": float(low.sum()),
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
    }


#: What :func:`summarize` gives, in the order of table 4, with the heading of its column.
COLUMNS = {
    "top": "top",
    "right": "right",
    "bottom": "bottom",
    "left": "left",
    "sum": "sum",
    "low": "low modes",
    "reward_mean": "reward",
    "reward_std": "± std",
}


def mode_table(named: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Named results of :func:`summarize` as a Markdown table in the order of table 4."""
    rows = [[name, *(f"{measures[key]:.3f}" for key in COLUMNS)] for name, measures in named]
    return markdown_table(["", *COLUMNS.values()], rows)


def measured_rows(name: str, summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What a run has measured, named: one action a state, and where the policy is a denoising chain the best of 32."""
    rows = [(name, summary)]
    return [*rows, (f"{name}, best of 32", summary["best_of_32"])] if "best_of_32" in summary else rows
