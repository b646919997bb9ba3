"""Figures show the numbers of the statistics."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from sb3_lql.benchmark.comparison import figures
from sb3_lql.benchmark.comparison.aggregates import Aggregates, Average, Estimate
from sb3_lql.benchmark.comparison.results import Comparison, read_results
from sb3_lql.benchmark.figure_files import save_figure
from sb3_lql.benchmark.looks import COLOURS, looks
from tests.benchmark.comparison import folders

MODE = "deterministic"


def lines(axes: Axes, colour: str) -> list[tuple[list[float], list[float]]]:
    """The lines of a colour."""
    found = [line for line in axes.lines if to_rgba(line.get_color()) == to_rgba(colour)]
    return [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in found]


def bands(axes: Axes) -> list[PolyCollection]:
    """The bands of a panel."""
    return [band for band in axes.collections if isinstance(band, PolyCollection)]


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """X has two complete seeds and a partial one on A, and nothing on B; Y has one seed on each."""
    folders.plan(tmp_path, ["X", "Y"], ["A-v0", "B-v0"], [1, 2, 3])
    folders.run(tmp_path, "A-v0", "X", 1, [0.0, 1, 2, 3, 4, 5])
    folders.run(tmp_path, "A-v0", "X", 2, [0.0, 3, 4, 5, 6, 7])
    folders.run(tmp_path, "A-v0", "X", 3, [0.0, 50, 60], status="running")
    for task in ("A-v0", "B-v0"):
        folders.run(tmp_path, task, "Y", 1, [1.0] * 6, algo="sac")
    return read_results(tmp_path)


def test_learning_curve_is_the_mean_over_the_seeds_that_got_furthest_above_every_seed(comparison: Comparison) -> None:
    panel, _ = figures.learning_curves(comparison, MODE, 50).axes
    *seeds, mean = lines(panel, COLOURS["nclql"])
    updates = [0, 800, 1600, 2400, 3200, 4000]
    assert seeds == [(updates, [0, 1, 2, 3, 4, 5]), (updates, [0, 3, 4, 5, 6, 7]), (updates[:3], [0, 50, 60])]
    assert mean == (updates, [0, 2, 3, 4, 5, 6])
    assert len(bands(panel)) == 1


def test_single_seed_is_a_line_without_a_band(comparison: Comparison) -> None:
    figure = figures.learning_curves(comparison, MODE, 50)
    assert [axes.get_title() for axes in figure.axes] == ["A-v0", "B-v0"]
    assert lines(figure.axes[1], COLOURS["nclql"]) == []
    assert [values for _, values in lines(figure.axes[1], COLOURS["sac"])] == [[1.0] * 6]
    assert bands(figure.axes[1]) == []
    # As strong as a mean, where no mean hides it
    (single,), mean = figure.axes[1].get_lines(), figure.axes[0].get_lines()[3]
    assert (single.get_linewidth(), single.get_alpha()) == (mean.get_linewidth(), 1.0)


def test_many_updates_are_counted_in_thousands(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["X"], ["A-v0"], [1], n_evaluations=20)
    folders.run(tmp_path, "A-v0", "X", 1, float)
    panel = figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0]
    assert panel.get_xlabel() == "updates (thousands)"
    assert max(lines(panel, COLOURS["nclql"])[0][0]) == 16


def test_normalized_performance_has_hollow_points_where_seeds_are_missing(comparison: Comparison) -> None:
    points = [Average(float(step), 1.0, 3) for step in range(4)] + [Average(4.0, 1.0, 2)]
    figure = figures.normalized_performance(comparison, {"X": [*points, None], "Y": [None] * 6})
    axes = figure.axes[0]
    assert lines(axes, COLOURS["nclql"])[0] == ([0, 0.2, 0.4, 0.6, 0.8], [0, 1, 2, 3, 4])
    markers = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert markers == [COLOURS["nclql"]] * 3 + ["white"]


def test_intervals_show_estimates_of_each_algorithm_and_pair(comparison: Comparison) -> None:
    aggregates = {name: Aggregates(Estimate(0.5, (0.25, 0.75)), Estimate(0.3, (0.2, 0.4)), 3) for name in ("X", "Y")}
    figure = figures.intervals(comparison, aggregates, {("X", "Y"): Estimate(0.9, (0.8, 1.0))})
    iqm, gap, probability = figure.axes
    assert [values for values, _ in lines(iqm, COLOURS["sac"])] == [[0.25, 0.75], [0.5]]
    assert [values for values, _ in lines(gap, COLOURS["sac"])] == [[0.2, 0.4], [0.3]]
    assert [values for values, _ in lines(probability, COLOURS["nclql"])] == [[0.8, 1.0], [0.9]]
    assert [label.get_text() for label in iqm.get_yticklabels()] == ["X", "Y"]
    assert [label.get_text() for label in probability.get_yticklabels()] == ["X > Y"]


def test_single_algorithm_has_no_panel_of_improvement(comparison: Comparison) -> None:
    estimate = Estimate(0.5, (0.25, 0.75))
    assert len(figures.intervals(comparison, {"X": Aggregates(estimate, estimate, 3)}, {}).axes) == 2


def test_looks_are_the_algorithms_own_and_all_different() -> None:
    """Whatever their order, and whatever else is shown; lines are solid under an algorithm's own name alone."""
    assert looks({"SAC": "sac", "NC-LQL": "nclql"}) == {"SAC": (COLOURS["sac"], "-"), "NC-LQL": (COLOURS["nclql"], "-")}
    found = looks({f"w = {w}": "nclql" for w in range(15)} | {"QSM, too": "comparedqsm", "QSM": "qsm", "?": "ddpg"})
    assert len(set(found.values())) == 18
    assert [found[f"w = {w}"][0] for w in range(4)] == [COLOURS["nclql"]] * 4
    assert found["w = 4"][0] == "#66AAD1"  # 0.6 of it and 0.4 of white
    assert (found["QSM"], found["QSM, too"]) == ((COLOURS["qsm"], "-"), (COLOURS["qsm"], "--"))
    green = COLOURS["lql"]
    assert looks({"LQL, tempered": "lql", "LQL": "lql"}) == {"LQL, tempered": (green, "--"), "LQL": (green, "-")}


def test_a_panel_names_the_algorithm_that_is_earliest_once_all_seeds_are_finished(tmp_path: Path) -> None:
    """X has 11 to 15 at the last evaluation and 0 before; Y the same number with all seeds."""
    folders.plan(tmp_path, ["X", "Y"], ["A-v0"], [1, 2, 3, 4, 5])
    for seed in range(1, 6):
        folders.run(tmp_path, "A-v0", "X", seed, [0.0] * 5 + [10.0 + seed])
    titles: list[str] = []
    for last in (5.0, 14.0, 11.5):
        for seed in range(1, 5):
            folders.run(tmp_path, "A-v0", "Y", seed, [0.0] * 5 + [last], algo="sac")
        if not titles:
            titles.append(figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0].get_title())
        folders.run(tmp_path, "A-v0", "Y", 5, [0.0] * 5 + [last], algo="sac")
        titles.append(figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0].get_title())
    messages = ["X earlier in all pairs", "none is clearly earliest", "X earlier in 80 % of pairs"]
    assert titles == ["A-v0", *(f"A-v0\n{message}" for message in messages)]


def test_of_several_algorithms_the_share_is_the_smallest(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["X", "Y", "Z"], ["A-v0"], [1, 2, 3, 4, 5])
    for seed in range(1, 6):
        folders.run(tmp_path, "A-v0", "X", seed, [0.0] * 5 + [10.0 + seed])
        folders.run(tmp_path, "A-v0", "Y", seed, [0.0] * 5 + [11.5], algo="sac")
        folders.run(tmp_path, "A-v0", "Z", seed, [0.0] * 5 + [5.0], algo="lql")
    title = figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0].get_title()
    assert title == "A-v0\nX earliest, in ≥ 80 % of pairs"


def test_of_four_algorithms_two_may_be_earliest(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["W", "X", "Y", "Z"], ["A-v0"], [1, 2, 3, 4, 5])
    for seed in range(1, 6):
        folders.run(tmp_path, "A-v0", "W", seed, [0.0] * 5 + [10.0 + seed])
        folders.run(tmp_path, "A-v0", "X", seed, [0.0] * 5 + [16.0 - seed], algo="sac")
        folders.run(tmp_path, "A-v0", "Y", seed, [0.0] * 5 + [11.5], algo="td3")
        folders.run(tmp_path, "A-v0", "Z", seed, [0.0] * 5 + [5.0], algo="lql")
    title = figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0].get_title()
    assert title.replace("\n", " ") == "A-v0 W and X earliest, in ≥ 80 % of pairs"


def test_none_is_earliest_that_is_not_clearly_ahead_of_every_other(tmp_path: Path) -> None:
    """Of two equal ones neither is ahead; of three, each is behind another in most pairs."""
    comparisons: list[tuple[list[str], list[list[float]]]] = [
        (["X", "Y"], [[1.0] * 5] * 2),
        (["X", "Y", "Z"], [[3, 3, 3, 3, 3], [5, 5, 1, 1, 4], [2, 2, 2, 4.5, 6]]),
    ]
    for names, means in comparisons:
        folder = folders.plan(tmp_path / str(len(names)), names, ["A-v0"], [1, 2, 3, 4, 5])
        for name, of_seeds in zip(names, means, strict=True):
            for seed, mean in enumerate(of_seeds, start=1):
                folders.run(folder, "A-v0", name, seed, [mean] * 6)
        assert (
            figures.learning_curves(read_results(folder), MODE, 50).axes[0].get_title()
            == "A-v0\nnone is clearly earliest"
        )


def test_a_panel_has_the_range_of_evaluations_after_updates(tmp_path: Path) -> None:
    """A run far below the others is cut off; its first evaluation, like theirs, is not."""
    folders.plan(tmp_path, ["X"], ["A-v0"], [1, 2, 3])
    limits = []
    for fourth in (20, -9_000):
        for seed in (1, 2):
            folders.run(tmp_path, "A-v0", "X", seed, [-9_000.0, -100, 20, 20, 60, 100])
        folders.run(tmp_path, "A-v0", "X", 3, [-9_000.0, -100, 20, fourth, 60, 100])
        limits.append(figures.learning_curves(read_results(tmp_path), MODE, 50).axes[0].get_ylim())
    assert limits == [(-110.0, 110.0), (-215.0, 115.0)]  # -100 to 100; half of that below -100


def test_each_of_many_algorithms_has_a_panel_with_the_first(tmp_path: Path) -> None:
    names = [f"w = {w}" for w in range(figures.N_TOGETHER + 1)]
    folders.plan(tmp_path, names, ["A-v0"], [1, 2, 3, 4, 5])
    for height, name in enumerate(names):
        for seed in range(1, 6):
            folders.run(tmp_path, "A-v0", name, seed, [float(height)] * 6)
    figure = figures.learning_curves(read_results(tmp_path), MODE, 50)
    panels = [axes for axes in figure.axes if axes.has_data()]
    for axes, name in zip(panels, names[1:], strict=True):
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["w = 0", name]
        assert axes.get_title().replace("\n", " ") == f"{name} earlier in all pairs"
    assert figure.legends == []


def test_normalized_performance_says_who_is_highest_and_leaves_out_what_is_not_drawn(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["X", "Y"], ["A-v0"], [1, 2, 3, 4, 5])
    folders.run(tmp_path, "A-v0", "X", 1, float)
    comparison = read_results(tmp_path)
    x: list[Average | None] = [Average(-90.0, 1.0, 5), *(Average(float(step), 0.0, 5) for step in range(5))]
    both = figures.normalized_performance(comparison, {"X": x, "Y": [*x[:-1], Average(8.0, 0.0, 5)]})
    assert both.axes[0].get_title().replace("\n", " ") == "At the end Y is highest (8.0), then X (4.0)"
    # A standard error of sqrt(80 / 5) = 4 reaches from 8 to 4
    wide = figures.normalized_performance(comparison, {"X": x, "Y": [*x[:-1], Average(8.0, 80**0.5, 5)]})
    assert wide.axes[0].get_title().replace("\n", " ") == "At the end none is clearly highest"
    assert both.axes[0].get_ylim() == pytest.approx((-0.4, 8.4))
    alone = figures.normalized_performance(comparison, {"X": x, "Y": [None] * 6})
    assert alone.axes[0].get_title() == ""
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["X"]


def test_environment_steps_are_counted_above(comparison: Comparison) -> None:
    """30,000 random ones, and 20,000 for 4,000 updates."""
    figure = figures.learning_curves(comparison, MODE, 50)
    figure.draw_without_rendering()
    panel = figure.axes[0]
    (steps,) = panel.child_axes
    low, high = panel.get_xlim()
    assert steps.get_xlim() == pytest.approx((30_000 + 5 * low, 30_000 + 5 * high))
    assert steps.get_xlabel() == "environment steps"


def test_long_names_wrap(tmp_path: Path) -> None:
    name = "NC-LQL with a very long name of its variant"
    folders.plan(tmp_path, [name], ["A-v0"], [1])
    folders.run(tmp_path, "A-v0", name, 1, float)
    (text,) = figures.learning_curves(read_results(tmp_path), MODE, 50).legends[0].get_texts()
    assert text.get_text() == "NC-LQL with a very long\nname of its variant"


def test_dollars_in_a_label_are_no_formula(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["$x^2$"], ["A-v0"], [1])
    folders.run(tmp_path, "A-v0", "$x^2$", 1, float)
    figure: Figure = figures.learning_curves(read_results(tmp_path), MODE, 50)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"\$x^2\$"]


def test_same_figure_is_the_same_file(comparison: Comparison, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        assert save_figure(figures.learning_curves(comparison, MODE, 50), tmp_path / "curves.svg") == "curves.svg"
        contents.append((tmp_path / "curves.svg").read_bytes())
    assert contents[0] == contents[1]
    assert b"<svg" in contents[0][:1000]


def test_tasks_without_a_run_have_no_panel(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["NC-LQL"], ["A-v0", "B-v0"], [1])
    folders.run(tmp_path, "B-v0", "NC-LQL", 1, float)
    figure: Figure = figures.learning_curves(read_results(tmp_path), MODE, 50)
    assert [axes.get_title().splitlines()[0] for axes in figure.axes if axes.get_title()] == ["B-v0"]
