"""The picture of paths, of several agents side by side."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from sb3_lql.benchmark.bandit.figures import ACTION_COLOUR, PANEL
from sb3_lql.benchmark.multi_goal.episodes import Episodes
from sb3_lql.benchmark.multi_goal.measures import summarize
from sb3_lql.envs.multi_goal import BLOCKED_RADIUS, BOUND, GOAL_RADIUS, GOALS

#: Episodes in a panel.
N_SHOWN = 40


def paths(named: Sequence[tuple[str, Episodes, Episodes]]) -> Figure:
    """
    The first 40 paths of each agent, above those with its favourite goal blocked.

    :param named: agents' names, and their episodes in either case
    """
    figure = Figure(figsize=(PANEL * len(named), 2 * (PANEL + 0.25) + 0.4), layout="constrained")
    figure.suptitle("Paths to four goals")
    panels = figure.subplots(2, len(named), squeeze=False)
    for (above, below), (name, free, blocked) in zip(panels.T, named, strict=True):
        above.set_title(name)
        _show(above, free)
        _show(below, blocked, wall=free.favourite)
    panels[0, 0].set_ylabel("as trained")
    panels[1, 0].set_ylabel("favourite blocked")
    return figure


def _show(axes: Axes, episodes: Episodes, wall: int | None = None) -> None:
    for index, goal in enumerate(GOALS):
        if index == wall:
            axes.add_patch(Circle(tuple(goal), BLOCKED_RADIUS, color="0.7"))
        else:
            axes.add_patch(Circle(tuple(goal), GOAL_RADIUS, fill=False, color="0.2"))
    x, y = episodes.paths[:N_SHOWN].T
    axes.plot(x, y, color=ACTION_COLOUR, linewidth=0.8, alpha=0.7)
    measures = summarize(episodes)
    axes.set_xlabel(f"{measures['n_goals']} of 4 goals, reached by {measures['reached']:.0%}", fontsize=8)
    axes.set(xlim=(-BOUND, BOUND), ylim=(-BOUND, BOUND), xticks=[], yticks=[], aspect="equal")
