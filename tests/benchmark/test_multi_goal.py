"""Episodes, measures and pictures of policies that are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

pytest.importorskip("matplotlib")

from sb3_lql.benchmark.figure_files import save_svg_and_png
from sb3_lql.benchmark.multi_goal.episodes import Episodes, run_episodes
from sb3_lql.benchmark.multi_goal.figures import paths
from sb3_lql.benchmark.multi_goal.measures import goal_table, summarize
from sb3_lql.envs.multi_goal import GOALS
from sb3_lql.saving.random_states import random_states


class Script:
    """Goes straight to the nearest of its goals, or to one drawn at random while it is near the origin."""

    def __init__(self, *goals: int) -> None:
        self.goals = np.array(goals)

    def predict(self, observations: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        assert not deterministic
        nearest = np.linalg.norm(observations[:, None] - GOALS[self.goals], axis=-1).argmin(axis=1)
        at_start = np.linalg.norm(observations, axis=1) < 0.7
        drawn = np.random.randint(len(self.goals), size=len(observations))
        away = GOALS[self.goals[np.where(at_start, drawn, nearest)]] - observations
        return (away / np.abs(away).max(axis=1, keepdims=True)).astype(np.float32), None


def episodes_of(script: Any, n_episodes: int = 100, **kwargs: Any) -> Episodes:
    return run_episodes(script, n_episodes, seed=0, **kwargs)


def test_one_goal_only() -> None:
    measures = summarize(episodes_of(Script(2)))
    # Four full steps of about 0.1 each, and distances of about 4, 3, 2 and 1
    assert measures.pop("mean_return") == pytest.approx(9.3, abs=0.1)
    assert measures == dict(shares=[0, 0, 1, 0], n_goals=1, entropy=0, effective_goals=1, reached=1)


def test_goals_drawn_uniformly() -> None:
    measures = summarize(episodes_of(Script(0, 1, 2, 3), 400))
    assert measures["n_goals"] == 4
    assert measures["shares"] == pytest.approx([0.25] * 4, abs=5 * np.sqrt(0.25 * 0.75 / 400))
    assert measures["entropy"] == pytest.approx(1, abs=0.03)
    assert measures["effective_goals"] == pytest.approx(4, abs=0.15)
    assert measures["reached"] == 1


def test_measures_by_hand() -> None:
    goals = np.array([0] * 4 + [1] * 48 + [3] * 48 + [-1] * 100)
    measures = summarize(Episodes(np.zeros((200, 31, 2)), goals, np.repeat([1.0, -3.0], 100)))
    assert measures["shares"] == [0.02, 0.24, 0, 0.24]
    assert measures["n_goals"] == 2  # the first one in less than 5 % of all
    entropy = -0.04 * np.log(0.04) - 0.96 * np.log(0.48)
    assert measures["entropy"] == pytest.approx(entropy / np.log(4))
    assert measures["effective_goals"] == pytest.approx(np.exp(entropy))
    assert (measures["reached"], measures["mean_return"]) == (0.5, -1)


def test_goals_by_twos() -> None:
    assert summarize(Episodes(np.zeros((4, 31, 2)), np.array([0, 3, 0, 3]), np.zeros(4)))["entropy"] == 0.5


def test_no_goal_reached() -> None:
    measures = summarize(Episodes(np.zeros((3, 31, 2)), np.full(3, -1), np.zeros(3)))
    assert measures == dict(shares=[0] * 4, n_goals=0, entropy=0, effective_goals=0, reached=0, mean_return=0)


def test_paths_lead_from_the_origin_to_the_goal_and_end_there() -> None:
    episodes = episodes_of(Script(1), 20)
    assert episodes.paths.shape == (20, 31, 2)
    assert np.linalg.norm(episodes.paths[:, 0], axis=1).max() < 0.6
    for path in episodes.paths:
        visited = path[~np.isnan(path[:, 0])]
        assert 4 <= len(visited) - 1 <= 6
        at_goal = np.linalg.norm(visited - GOALS[1], axis=1) <= 1
        assert at_goal.tolist() == [False] * (len(visited) - 1) + [True]


def test_a_blocked_favourite_is_missed_by_who_knows_no_other() -> None:
    free = episodes_of(Script(2), 10)
    assert free.favourite == 2
    blocked = episodes_of(Script(2), 10, blocked=[2])
    assert (blocked.goals == -1).all()
    assert not np.isnan(blocked.paths).any()
    assert blocked.returns.max() < 0
    two = episodes_of(Script(0, 2), blocked=[2])
    assert summarize(two)["reached"] == pytest.approx(0.5, abs=0.25)
    assert two.favourite == 0


def test_favourite_where_none_is_reached_is_the_first() -> None:
    assert Episodes(np.zeros((3, 31, 2)), np.full(3, -1), np.zeros(3)).favourite == 0


def test_episodes_are_repeatable_and_leave_random_states_alone() -> None:
    model = SAC("MlpPolicy", "MultiGoal-v0", policy_kwargs=dict(net_arch=[8]), seed=0, device="cpu")
    before = random_states()
    first, second = (run_episodes(model, 5, seed=3) for _ in range(2))
    after = random_states()
    np.testing.assert_array_equal(first.paths, second.paths)
    assert th.equal(before["torch"], after["torch"])
    np.testing.assert_array_equal(before["numpy"][1], after["numpy"][1])
    assert not np.array_equal(first.paths[:, 0], run_episodes(model, 5, seed=4).paths[:, 0])


def test_episodes_come_back_from_a_file(tmp_path: Path) -> None:
    episodes = episodes_of(Script(0, 1), 3)
    episodes.save(tmp_path / "free.npz")
    loaded = Episodes.load(tmp_path / "free.npz")
    for name, array in vars(episodes).items():
        np.testing.assert_array_equal(getattr(loaded, name), array)


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_episodes=0 is not positive: pass a number of episodes"):
        run_episodes(SAC("MlpPolicy", "MultiGoal-v0", device="cpu"), 0, seed=0)


def test_table_has_means_and_ranges_over_the_seeds() -> None:
    one: dict[str, Any] = dict(n_goals=1, effective_goals=1.0, reached=1.0, mean_return=9.0)
    four: dict[str, Any] = dict(n_goals=4, effective_goals=3.5, reached=0.5, mean_return=8.0)
    runs: list[dict[str, Any]] = [dict(free=measures, blocked=one, adapted=one) for measures in (one, four)]
    lines = goal_table([("LQL", runs), ("SAC", runs[:1])]).splitlines()
    assert lines[0] == "|  |  | goals | effective goals | reached | return |"
    assert lines[2] == (
        "| LQL | as trained | 2.5 (1.0 … 4.0) | 2.25 (1.00 … 3.50) | 75% (50% … 100%) | 8.50 (8.00 … 9.00) |"
    )
    assert lines[6] == "| SAC | favourite blocked | 1.0 | 1.00 | 100% | 9.00 |"
    assert len(lines) == 2 + 2 * 3


def test_picture_shows_each_agent_free_and_blocked(tmp_path: Path) -> None:
    agents = {"one": Script(2), "all": Script(0, 1, 2, 3)}
    figure = paths([(name, episodes_of(script), episodes_of(script, blocked=[2])) for name, script in agents.items()])
    one, every, one_blocked, _ = figure.axes
    assert (one.get_title(), every.get_title()) == ("one", "all")
    assert one.get_xlabel() == "1 of 4 goals, reached by 100%"
    assert one_blocked.get_xlabel() == "0 of 4 goals, reached by 0%"
    assert [len(axes.lines) for axes in figure.axes] == [40] * 4
    assert [patch.get_radius() for patch in one_blocked.patches] == [1, 1, 1.5, 1]  # type: ignore[attr-defined]
    assert [patch.get_radius() for patch in every.patches] == [1] * 4  # type: ignore[attr-defined]
    save_svg_and_png(figure, tmp_path, "paths")
    assert (tmp_path / "paths.png").is_file()
