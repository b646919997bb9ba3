"""Four goals, of which some may be blocked, in a well-behaved gymnasium environment."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sb3_lql.envs import MultiGoal
from sb3_lql.envs.multi_goal import GOALS, distances

ENV_ID = "MultiGoal-v0"
STAY = np.zeros(2, np.float32)


def at(position: tuple[float, float], **kwargs: Any) -> MultiGoal:
    """An environment whose point is there."""
    env = MultiGoal(**kwargs)
    env.reset(seed=0)
    env._position = np.array(position, np.float32)
    return env


def moved(env: MultiGoal, *action: float) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    return env.step(np.array(action, np.float32))


def test_environment_passes_the_checks_of_gymnasium_and_stable_baselines3() -> None:
    gymnasium_check_env(gym.make(ENV_ID, render_mode="rgb_array").unwrapped, skip_render_check=False)
    sb3_check_env(gym.make(ENV_ID, blocked=(1, 3)).unwrapped)


def test_goals_are_equally_good() -> None:
    np.testing.assert_array_equal(GOALS, [(5, 0), (0, 5), (-5, 0), (0, -5)])
    np.testing.assert_allclose(distances(np.zeros((3, 2))), np.full((3, 4), 5.0))
    for goal, direction in enumerate(GOALS / 5):
        env = at((0, 0))
        steps = [moved(env, *direction) for _ in range(4)]
        # After each step of cost 0.1, 4, 3, 2 and 1 from the goal
        assert [reward for _, reward, *_ in steps] == pytest.approx([-0.26, -0.19, -0.14, 10 - 0.11])
        assert [terminated for *_, terminated, _, _ in steps] == [False, False, False, True]
        assert steps[-1][-1] == {"goal": goal}


def test_starts_are_near_the_origin_and_repeatable() -> None:
    env = MultiGoal()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(2_000)])
    np.testing.assert_allclose(starts.mean(axis=0), 0, atol=5 * 0.1 / np.sqrt(2_000))
    np.testing.assert_allclose(starts.std(axis=0), 0.1, rtol=5 / np.sqrt(2 * 2_000))
    np.testing.assert_array_equal(env.reset(seed=7)[0], starts[7])


def test_action_is_a_displacement_within_the_bounds() -> None:
    position, reward, terminated, truncated, info = moved(at((-6.5, 6.75)), -1, 0.5)
    np.testing.assert_array_equal(position, [-7, 7])
    assert position.dtype == np.float32
    assert reward == pytest.approx(-0.1 * 1.25 - 0.01 * (49 + 4))
    assert (terminated, truncated, info) == (False, False, {})


def test_a_goal_is_reached_within_one_of_it() -> None:
    assert moved(at((3, 0)), 0.99, 0)[2] is False
    _, reward, terminated, _, info = moved(at((0, -3)), 0, -1)
    assert reward == pytest.approx(10 - 0.11)
    assert terminated
    assert info == {"goal": 3}


def test_a_blocked_goal_cannot_be_entered_and_still_counts_as_the_nearest() -> None:
    env = at((3, 0), blocked=[0])
    np.testing.assert_array_equal(moved(env, 0.5, 0)[0], [3, 0])  # the disc is closed
    position, reward, terminated, _, info = moved(env, 0.75, 0)
    np.testing.assert_array_equal(position, [3, 0])
    assert reward == pytest.approx(-0.1 * 0.5625 - 0.01 * 4)
    assert (terminated, info) == (False, {})
    np.testing.assert_array_equal(moved(env, 0.25, 0.0)[0], [3.25, 0])
    np.testing.assert_array_equal(moved(at((3, 0)), 0.75, 0)[0], [3.75, 0])


def test_the_others_can_be_reached_while_one_is_blocked() -> None:
    assert moved(at((0, 3.5), blocked=(0, 2)), 0, 1)[-1] == {"goal": 1}


def test_episodes_are_cut_after_thirty_steps() -> None:
    env = gym.make(ENV_ID)
    env.reset(seed=0)
    truncations = [env.step(STAY)[3] for _ in range(30)]
    assert truncations == [False] * 29 + [True]


def test_observations_are_not_the_environments_own_array() -> None:
    env = MultiGoal()
    first, _ = env.reset(seed=0)
    kept = first.copy()
    first[:] = 6
    np.testing.assert_array_equal(env.step(STAY)[0], kept)


@pytest.mark.parametrize("action", [(1.5, 0), (0, np.nan), (0, 0, 0), 1.0])
def test_action_outside_the_space_is_refused(action: Any) -> None:
    with pytest.raises(ValueError, match=r"action=.* is not in Box.*pass two numbers within"):
        MultiGoal().step(np.asarray(action))


def test_goals_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"blocked=\(0, 4\) holds \{4\}: pass indices of goals, 0 to 3"):
        MultiGoal(blocked=(0, 4))


def test_other_render_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode='ansi' is not supported: pass 'rgb_array' or None"):
        MultiGoal(render_mode="ansi")


def test_frame_shows_goals_and_paths() -> None:
    assert MultiGoal().render() is None
    env = at((0, 0), blocked=[2], render_mode="rgb_array")
    frame = env.render()
    assert frame is not None
    assert frame.shape == (400, 400, 3)
    assert frame.dtype == np.uint8
    row, column = 200, round((5 / 7 + 1) * 399 / 2)
    goal, blocked = frame[row, column], frame[row, 399 - column]
    assert tuple(frame[0, 0]) == (255, 255, 255)
    assert tuple(goal) == tuple(frame[399 - column, row])  # the goal at the top
    assert tuple(blocked) not in (tuple(goal), (255, 255, 255))

    for direction in ((0, 1), (1, 0)):
        env.reset()
        env._position[:] = 0
        for _ in range(2):
            moved(env, *direction)
    frame = env.render()
    assert frame is not None
    newest = (255, 0, 0)
    up, right = frame[170, 199:201], frame[199:201, 230]  # about 1 from the origin
    assert any(tuple(pixel) == newest for pixel in right)
    assert any(tuple(pixel) not in (newest, (255, 255, 255)) for pixel in up)
