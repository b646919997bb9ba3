"""What episodes say of the policy that ran them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_lql.benchmark.multi_goal.episodes import NO_GOAL, Episodes
from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.envs.multi_goal import GOALS

#: A goal counts if at least this share of episodes reaches it.
LEAST_SHARE = 0.05
#: What is measured of each agent, in its order, with the description in a table.
SITUATIONS = {"free": "as trained", "blocked": "favourite blocked", "adapted": "after further training"}
#: Of :func:`summarize`, with the heading of its column and the format of its numbers.
COLUMNS = {
    "n_goals": ("goals", "{:.1f}"),
    "effective_goals": ("effective goals", "{:.2f}"),
    "reached": ("reached", "{:.0%}"),
    "mean_return": ("return", "{:.2f}"),
}


def summarize(episodes: Episodes) -> dict[str, Any]:
    """
    :return: ``shares`` of the episodes that reach each goal, and of those that reach any (``reached``); ``n_goals``,
        how many have a share of at least 5 %; ``entropy`` of the goals among the episodes that reach one, in units of
        log 4, and ``effective_goals``, the exponential of that entropy in nats, 0 where no goal is reached;
        ``mean_return``
    """
    shares = np.array([(episodes.goals == goal).mean() for goal in range(len(GOALS))])
    reached = float((episodes.goals != NO_GOAL).mean())
    chosen = shares[shares > 0] / (reached or 1.0)
    entropy = -float((chosen * np.log(chosen)).sum())
    return {
        "shares": shares.tolist(),
        "n_goals": int((shares >= LEAST_SHARE).sum()),
        "entropy": entropy / float(np.log(len(GOALS))),
        "effective_goals": float(np.exp(entropy)) if reached else 0.0,
        "reached": reached,
        "mean_return": float(episodes.returns.mean()),
    }


def goal_table(named: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """
    A Markdown table of the mean over the seeds and their range, a row for each algorithm and situation.

    :param named: the algorithms' names and, of each of their seeds, results of :func:`summarize` by situation
    """
    rows = [
        [
            name,
            description,
            *(_cell([run[situation][key] for run in runs], style) for key, (_, style) in COLUMNS.items()),
        ]
        for name, runs in named
        for situation, description in SITUATIONS.items()
    ]
    return markdown_table(["", "", *(heading for heading, _ in COLUMNS.values())], rows)


def _cell(values: Sequence[float], style: str) -> str:
    mean, lowest, highest = (style.format(value) for value in (np.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({lowest} … {highest})"
