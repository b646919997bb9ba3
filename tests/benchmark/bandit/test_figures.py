"""Every figure shows what it says, of one run and of several, and is written as SVG and PNG."""

from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch as th

pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit import figures
from sb3_lql.benchmark.bandit.chains import trajectories
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import ALGORITHMS, Run, draw, measure_at_inverse_temperatures
from sb3_lql.benchmark.figure_files import save_svg_and_png
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.networks.layers import EnsembleLinear

#: Where the high modes of table 4 are: top, right, bottom, left.
DIRECTIONS = [(0, 1), (1, 0), (0, -1), (-1, 0)]


def run_of(model: BaseAlgorithm, algo: str) -> Run:
    """A run of an agent that was not trained."""
    samples = draw(model, 50, seed=0)
    summary: dict[str, Any] = dict(algo=algo, seed=0, **summarize(samples))
    if isinstance(model, LangevinAlgorithm):
        summary["by_inverse_temperature"] = measure_at_inverse_temperatures(model, 50, seed=0)
    return Run(model, samples, summary)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """A run of each algorithm."""
    kwargs: dict[str, Any] = dict(policy_kwargs=dict(net_arch=[8]), seed=0, device="cpu")
    return [run_of(cls("MlpPolicy", "MultimodalBandit-v0", **kwargs), algo) for algo, cls in ALGORITHMS.items()]


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    found = [axes.get_title() + axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    found += [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join(found)


def dots(axes: Axes) -> list[np.ndarray]:
    """The positions of the dots in a panel, for each set of dots."""
    return [np.asarray(dots.get_offsets()) for dots in axes.collections if isinstance(dots, PathCollection)]


def test_samples_shows_the_actions_of_every_run_with_its_shares(runs: list[Run]) -> None:
    figure = figures.samples(runs)
    for axes, run in zip(figure.axes[: len(runs)], runs, strict=True):
        assert axes.get_title().startswith(f"{run.name}\n")
        np.testing.assert_allclose(dots(axes)[0], run.samples)
        shown = [text.get_text() for text in axes.texts]
        assert shown == [f"{run.summary[mode]:.3f}" for mode in ("top", "right", "bottom", "left")]
        np.testing.assert_array_equal(np.sign(np.round([text.get_position() for text in axes.texts])), DIRECTIONS)


def test_map_has_the_first_coordinate_to_the_right_and_the_second_up() -> None:
    model = LQL("MlpPolicy", "MultimodalBandit-v0", policy_kwargs=dict(net_arch=[], n_critics=1), device="cpu")
    layer = cast(EnsembleLinear, model.critic.layers[0])
    with th.no_grad():
        layer.weight.copy_(th.tensor([[[0.0], [3.0], [1.0]]]))  # observation, first, second
    shown = figures.value_maps([run_of(model, "lql")]).axes[0].images[0]
    image = np.asarray(shown.get_array())
    assert shown.origin == "lower"
    assert image[0, -1] > image[-1, 0]  # more at the bottom right than at the top left
    assert image[0, 0] == image.min()


def test_value_maps_shows_four_noise_levels_beside_the_one_of_lql(runs: list[Run]) -> None:
    figure = figures.value_maps(runs[:2])
    assert len(figure.axes) == 2 * 5
    assert all(f"NC-LQL, level {level}, $" in texts(figure) for level in (1, 4, 7))
    assert "NC-LQL, level 10, no noise" in texts(figure)
    assert "LQL, Q(s, a)" in texts(figure)


def test_value_maps_of_fewer_levels_shows_those(tiny: dict[str, Any]) -> None:
    model = NCLQL("MlpPolicy", "MultimodalBandit-v0", n_noise_levels=5, **tiny)
    titles = [axes.get_title() for axes in figures.value_maps([run_of(model, "nclql")]).axes]
    assert titles == ["NC-LQL, level 1, $\\sigma$ = 0.1", "NC-LQL, level 4, $\\sigma$ = 0.0032", "", ""]


def test_temperatures_has_a_row_for_each_run(runs: list[Run]) -> None:
    figure = figures.temperatures(runs[:2])
    assert len(figure.axes) == 2 * len(figures.SHOWN_TEMPERATURES)
    assert "w = 500" in texts(figure)


def test_from_grid_leads_every_start_of_a_grid_to_its_action(runs: list[Run]) -> None:
    figure = figures.from_grid(runs)
    for axes, run in zip(figure.axes[: len(runs)], runs, strict=True):
        assert f"{run.summary['reward_mean']:.2f} ± {run.summary['reward_std']:.2f}" in axes.get_title()
        (lines,) = (lines for lines in axes.collections if isinstance(lines, LineCollection))
        starts, actions = dots(axes)
        np.testing.assert_allclose(np.stack(lines.get_segments()), np.stack([starts, actions], axis=1))
        np.testing.assert_allclose(actions, trajectories(run.model, starts, seed=0)[-1])
        assert {tuple(start) for start in starts} == set(product(np.linspace(-2, 2, 19), repeat=2))


def test_steps_shows_the_start_and_ten_times_on_the_way(runs: list[Run]) -> None:
    for run in runs[:2]:
        panels = [axes for axes in figures.steps(run).axes if axes.axison]
        titles = [axes.get_title() for axes in panels]
        assert len(titles) == 11
        starts = dots(panels[0])[0]
        visited = trajectories(run.model, starts, seed=0)
        np.testing.assert_allclose([dots(axes)[0] for axes in panels], visited[::2])
        assert titles[0] == "initial actions"
        assert titles[-1].startswith("step 20")


@pytest.mark.parametrize("name", ["SAC", "SDAC"])
def test_only_langevin_chains_have_value_maps(runs: list[Run], name: str) -> None:
    (run,) = (run for run in runs if run.name == name)
    assert not run.is_langevin
    with pytest.raises(ValueError, match=f"{name} runs no Langevin chain: pass runs of LQL and NC-LQL"):
        figures.value_maps([run])


def test_saved_figure_is_svg_and_png_and_the_same_again(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        save_svg_and_png(figures.reward_map(), tmp_path, "reward_map")
        contents.append([(tmp_path / f"reward_map.{suffix}").read_bytes() for suffix in ("svg", "png")])
    assert contents[0] == contents[1]
    svg, png = contents[0]
    assert b"<svg" in svg[:1000]
    assert png.startswith(b"\x89PNG")
