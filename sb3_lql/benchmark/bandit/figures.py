"""The bandit's figures. Every function draws one, of one or several runs side by side."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle

from sb3_lql.benchmark.bandit.chains import trajectories
from sb3_lql.benchmark.bandit.distributions import boltzmann_distribution, grid, histogram, total_variation
from sb3_lql.benchmark.bandit.landscape import Landscape, learned_landscape, noise_scales, perfect_landscape
from sb3_lql.benchmark.bandit.measures import MODE_RADIUS
from sb3_lql.benchmark.bandit.runs import INVERSE_TEMPERATURES, Run, draw_at
from sb3_lql.envs.multimodal_bandit import BOUND, HIGH_MODES, MODES, reward
from sb3_lql.langevin.sampler import LangevinSampler

#: Width and height of a panel, in inches.
PANEL = 2.4
#: Large panels in a row.
MOST_COLUMNS = 4
#: Dark where there is little reward, white where there is much.
COLOUR_MAP = "Blues_r"
ACTION_COLOUR = "#ff7f0e"
START_COLOUR = "white"
#: ``w`` of the columns of :func:`temperatures`, at all of which runs are measured.
SHOWN_TEMPERATURES = tuple(w for w in INVERSE_TEMPERATURES if w in (1, 20, 50, 100, 200, 500))
#: ``w`` of the columns of :func:`laws`.
TEMPERATURES_OF_LAWS = (1, 5, 20, 100, 500)
#: Noise levels in :func:`value_maps`, counted from 1 as in figure 2.
SHOWN_LEVELS = (1, 4, 7, 10)
#: Actions in a panel that shows the shape of a distribution.
N_SHOWN = 2_000
#: Actions of which the distance from a law is measured.
N_MEASURED = 10_000


def side_by_side(runs: Sequence[Run]) -> dict[str, Figure]:
    """All figures that show several runs, by file name; Q and the effect of ``w`` of those with a Langevin policy."""
    drawn = {"reward_map": reward_map(), "samples": samples(runs)}
    if moving := [run for run in runs if not run.is_tempered]:
        drawn["from_grid"] = from_grid(moving)
    if langevin := [run for run in runs if run.is_langevin]:
        drawn |= {"value_maps": value_maps(langevin), "temperatures": temperatures(langevin)}
    return drawn


def reward_map() -> Figure:
    """The reward over the actions (figure 7)."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    image = _show_map(axes, _reward_on_grid())
    axes.set(xticks=range(-2, 3), yticks=range(-2, 3), xlabel="first action coordinate", ylabel="second")
    axes.set_title("Four high modes (circled), four low ones (dotted)", fontsize=10)
    _mark_modes(axes)
    figure.colorbar(image, label="reward")
    return figure


def samples(runs: Sequence[Run]) -> Figure:
    """All samples, with the share of each high mode beside it (table 4)."""
    figure, panels = _panels_of(runs)
    figure.suptitle("Actions (orange) on the reward (white: high), and their share in each high mode")
    for axes, run in zip(panels, runs, strict=True):
        _show_reward(axes)
        _dots(axes, run.samples, size=2)
        for name, index in HIGH_MODES.items():
            x, y = 0.55 * MODES[index]
            share = f"{run.summary[name]:.3f}"
            axes.text(x, y, share, color="white", ha="center", va="center", fontsize=9, fontweight="bold")
        axes.set_title(f"{run.name}\n{run.summary['sum']:.1%} in high modes, {run.summary['low']:.1%} in low ones")
    return figure


def value_maps(runs: Sequence[Run]) -> Figure:
    """Learned Q over the actions, at several noise levels where there are any, above the exact one (figure 2)."""
    columns = [(run, level) for run in runs for level in _shown_levels(run)]
    figure, panels = _panels(2, len(columns))
    figure.suptitle("Q over the actions, at noise levels from coarse to none (white: high)")
    for (learned, exact), (run, level) in zip(panels.T, columns, strict=True):
        landscape = learned_landscape(run.langevin_model.policy)
        learned.set_title(f"{run.name}, {_level_title(landscape, level)}", fontsize=9)
        for axes, shown in ((learned, landscape), (exact, perfect_landscape(run.langevin_model))):
            values = shown.on_grid(level)
            _show_map(axes, values)
            axes.set_xlabel(f"{values.min():.2f} … {values.max():.2f}", fontsize=8)
    panels[0, 0].set_ylabel("learned")
    panels[1, 0].set_ylabel("exact, for uniform data")
    return figure


def temperatures(runs: Sequence[Run]) -> Figure:
    """Actions over the reward map, one column for each ``w`` (figure 3)."""
    figure, panels = _panels(len(runs), len(SHOWN_TEMPERATURES), panel=0.75 * PANEL)
    figure.suptitle("Actions (orange) at growing w")
    for row, run in zip(panels, runs, strict=True):
        row[0].set_ylabel(run.name)
        for axes, w in zip(row, SHOWN_TEMPERATURES, strict=True):
            _show_reward(axes)
            _dots(axes, draw_at(run.langevin_model, w, N_SHOWN, run.seed), size=1)
            (measured,) = (m for m in run.summary["by_inverse_temperature"] if m["inverse_temperature"] == w)
            axes.set_xlabel(f"{measured['sum']:.0%} in high modes", fontsize=8)
    for axes, w in zip(panels[0], SHOWN_TEMPERATURES, strict=True):
        axes.set_title(f"w = {w}")
    return figure


def laws(runs: Sequence[Run]) -> Figure:
    """Actions drawn with a perfect critic below the law exp(w * reward) itself, one column for each ``w``."""
    figure, panels = _panels(1 + len(runs), len(TEMPERATURES_OF_LAWS), panel=0.85 * PANEL)
    figure.suptitle("The law exp(w · reward), and actions drawn with a perfect critic")
    panels[0, 0].set_ylabel("the law")
    values = _reward_on_grid()
    for column, w in zip(panels.T, TEMPERATURES_OF_LAWS, strict=True):
        column[0].set_title(f"w = {w}")
        _show_map(column[0], np.exp(w * (values - values.max())))
        law = boltzmann_distribution(values, w)
        for axes, run in zip(column[1:], runs, strict=True):
            actions = draw_at(run.langevin_model, w, N_MEASURED, run.seed, perfect=True)
            _show_reward(axes)
            _dots(axes, actions[:N_SHOWN], size=1)
            axes.set_xlabel(f"{total_variation(histogram(actions), law):.2f} away", fontsize=8)
    for row, run in zip(panels[1:], runs, strict=True):
        row[0].set_ylabel(run.name)
    return figure


def from_grid(runs: Sequence[Run]) -> Figure:
    """Lines from a grid of initial actions to the actions drawn from them (figure 4)."""
    figure, panels = _panels_of(runs)
    figure.suptitle("From a grid of initial actions (white) to final ones (orange)")
    starts = _start_grid()
    for axes, run in zip(panels, runs, strict=True):
        final = trajectories(run.model, starts, run.seed)[-1]
        _show_reward(axes)
        lines = LineCollection(list(np.stack([starts, final], axis=1)), colors="white", linewidths=0.4, alpha=0.5)
        axes.add_collection(lines)
        _dots(axes, starts, size=3, colour=START_COLOUR)
        _dots(axes, final, size=10)
        mean, std = run.summary["reward_mean"], run.summary["reward_std"]
        axes.set_title(f"{run.name}\nreward {mean:.2f} ± {std:.2f}")
    return figure


def steps(run: Run) -> Figure:
    """A grid of initial actions and where its chains are at ten times on their way (figures 8 to 14)."""
    visited = trajectories(run.model, _start_grid(), run.seed)
    shown = np.unique(np.linspace(0, len(visited) - 1, 11).round().astype(int))
    figure, panels = _panels(2, (len(shown) + 1) // 2, panel=0.9 * PANEL)
    for axes, step in zip(panels.flat, shown, strict=False):
        _show_reward(axes)
        _dots(axes, visited[step], size=4, colour=ACTION_COLOUR if step else START_COLOUR)
        axes.set_title(_step_title(run, step), fontsize=9)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle(f"{run.name}: actions (orange) on their way from a grid of initial ones (white)")
    return figure


def _level_title(landscape: Landscape, level: int) -> str:
    if landscape.last_level == 0:
        return "Q(s, a)"
    # The last level learns from TD on clean actions: no critic has its noise scale
    noise = "no noise" if level == landscape.last_level else rf"$\sigma$ = {landscape.sigmas[level]:.2g}"
    return f"level {level + 1}, {noise}"


def _shown_levels(run: Run) -> list[int]:
    """Indices of :data:`SHOWN_LEVELS` as far as the agent has them; 0 for one without noise levels."""
    n_levels = len(noise_scales(run.langevin_model.policy))
    return [level - 1 for level in SHOWN_LEVELS if level <= n_levels]


def _start_grid() -> np.ndarray:
    """Initial actions on a uniform grid (appendix D), shape (361, 2)."""
    axis = np.linspace(-BOUND, BOUND, 19)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def _step_title(run: Run, step: int) -> str:
    if step == 0:
        return "initial actions"
    sampler = run.langevin_model.policy.sampler if run.is_langevin else None
    if not isinstance(sampler, LangevinSampler) or not sampler.noise_conditioned:
        return f"step {step}"
    return f"step {step}, level {(step - 1) // sampler.n_steps + 1}"


def _panels(n_rows: int, n_columns: int, panel: float = PANEL) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(panel * n_columns, (panel + 0.25) * n_rows + 0.3), layout="constrained")
    panels: np.ndarray = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    return figure, panels


def _panels_of(runs: Sequence[Run]) -> tuple[Figure, list[Axes]]:
    """A large panel for each run, several rows of them if there are many."""
    n_columns = min(len(runs), MOST_COLUMNS)
    figure, panels = _panels(-(-len(runs) // n_columns), n_columns, panel=1.6 * PANEL)
    for axes in panels.flat[len(runs) :]:
        axes.set_axis_off()
    return figure, list(panels.flat[: len(runs)])


def _show_map(axes: Axes, values: np.ndarray) -> AxesImage:
    return axes.imshow(values.T, origin="lower", extent=(-BOUND, BOUND, -BOUND, BOUND), cmap=COLOUR_MAP)


def _show_reward(axes: Axes) -> None:
    _show_map(axes, _reward_on_grid())
    _mark_modes(axes)


@cache
def _reward_on_grid() -> np.ndarray:
    # The background of nearly every panel
    return reward(grid())


def _mark_modes(axes: Axes) -> None:
    """A circle of the radius that counts around each mode, dotted around the low ones."""
    for index, mode in enumerate(MODES):
        colour, style = ("0.4", "-") if index in HIGH_MODES.values() else ("white", ":")
        axes.add_patch(Circle(tuple(mode), MODE_RADIUS, fill=False, color=colour, linewidth=0.9, linestyle=style))


def _dots(axes: Axes, actions: np.ndarray, size: float, colour: str = ACTION_COLOUR) -> None:
    # As a bitmap within the SVG: ten thousand paths would make a file of megabytes
    axes.scatter(actions[:, 0], actions[:, 1], s=size, color=colour, linewidths=0, rasterized=True, zorder=3)
    axes.set(xlim=(-BOUND, BOUND), ylim=(-BOUND, BOUND))
