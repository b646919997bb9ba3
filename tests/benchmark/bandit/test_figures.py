"""Every figure is drawn of one run and of several, and written as SVG and PNG."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from stable_baselines3 import SAC

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit import figures
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import Run, draw, measure_at_inverse_temperatures

TINY = dict(policy_kwargs=dict(net_arch=[8]), seed=0, device="cpu")


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """An untrained agent of each algorithm, measured."""
    models: dict[str, Any] = dict(nclql=NCLQL, lql=LQL, sac=SAC)
    found = []
    for algo, cls in models.items():
        model = cls("MlpPolicy", "MultimodalBandit-v0", **TINY)
        measures: dict[str, Any] = summarize(draw(model, 50, seed=0))
        measures["inverse_temperatures"] = measure_at_inverse_temperatures(model, 50, seed=0)
        found.append(Run(model, dict(algo=algo, seed=0, **measures)))
    return found


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    found = [axes.get_title() + axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    found += [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join(found)


def test_samples_shows_every_run_with_its_shares(runs: list[Run]) -> None:
    figure = figures.samples(runs, [draw(run.model, 20, seed=0) for run in runs])
    assert len(figure.axes) == 3
    assert all(name in texts(figure) for name in ("NC-LQL", "LQL", "SAC"))
    assert all(
        f"{run.summary[mode]:.3f}" in texts(figure) for run in runs for mode in ("top", "right", "bottom", "left")
    )


def test_value_maps_shows_four_noise_levels_beside_the_one_of_lql(runs: list[Run]) -> None:
    figure = figures.value_maps(runs[:2])
    assert len(figure.axes) == 2 * 5
    assert all(f"level {level}," in texts(figure) for level in (1, 4, 7, 10))
    assert "LQL, Q(s, a)" in texts(figure)


def test_value_maps_of_fewer_levels_shows_those(tiny: dict[str, Any]) -> None:
    model = NCLQL("MlpPolicy", "MultimodalBandit-v0", n_noise_levels=5, **tiny)
    assert len(figures.value_maps([Run(model, dict(algo="nclql", seed=0))]).axes) == 2 * 2


def test_temperatures_has_a_row_for_each_run(runs: list[Run]) -> None:
    figure = figures.temperatures(runs[:2])
    assert len(figure.axes) == 2 * len(figures.SHOWN_TEMPERATURES)
    assert "w = 500" in texts(figure)


def test_from_grid_shows_the_reward_of_every_run(runs: list[Run]) -> None:
    figure = figures.from_grid(runs)
    assert all(f"{run.summary['reward_mean']:.2f} ± {run.summary['reward_std']:.2f}" in texts(figure) for run in runs)


def test_steps_shows_the_start_and_ten_times_on_the_way(runs: list[Run]) -> None:
    for run in runs[:2]:
        titles = [axes.get_title() for axes in figures.steps(run).axes if axes.axison]
        assert len(titles) == 11
        assert titles[0] == "initial actions"
        assert titles[-1].startswith("step 20")


def test_sac_has_no_chain_to_draw(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="SAC runs no Langevin chain: pass runs of LQL and NC-LQL"):
        figures.steps(runs[2])


def test_saved_figure_is_svg_and_png_and_the_same_again(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        figures.save(figures.reward_map(), tmp_path, "reward_map")
        contents.append([(tmp_path / f"reward_map.{suffix}").read_bytes() for suffix in ("svg", "png")])
    assert contents[0] == contents[1]
    svg, png = contents[0]
    assert b"<svg" in svg[:1000]
    assert png.startswith(b"\x89PNG")
