"""The bandit is that of appendix C.1, and a well-behaved gymnasium environment."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env

import sb3_lql.envs
from sb3_lql.envs.multimodal_bandit import HIGH_MODES, MODES, reward

ENV_ID = "MultimodalBandit-v0"
#: Appendix C.1.
CENTRES = [(2**0.5, 0), (1, 1), (0, 2**0.5), (-1, 1), (-(2**0.5), 0), (-1, -1), (0, -(2**0.5)), (1, -1)]


def mixture_density(actions: np.ndarray) -> np.ndarray:
    """Appendix C.1, from the Gaussians' densities."""
    stats = pytest.importorskip("scipy.stats")
    densities = [
        weight / 12 * stats.multivariate_normal(centre, 0.3**2 * np.eye(2)).pdf(actions)
        for weight, centre in zip([2, 1] * 4, CENTRES, strict=True)
    ]
    total: np.ndarray = np.sum(densities, axis=0)
    return total


def make(**kwargs: Any) -> Any:
    return gym.make(ENV_ID, **kwargs)


def test_reward_is_the_mixture_divided_by_its_maximum() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    highest = optimize.minimize(lambda a: -mixture_density(a), x0=(1.4, 0.0), tol=1e-14)
    actions = np.random.default_rng(0).uniform(-2, 2, (1000, 2))
    np.testing.assert_allclose(reward(actions), mixture_density(actions) / -highest.fun, rtol=1e-7)


def test_highest_reward_is_one() -> None:
    near_a_high_mode = np.stack(np.meshgrid(np.linspace(1.3, 1.5, 401), np.linspace(-0.1, 0.1, 401)), axis=-1)
    highest = reward(near_a_high_mode).max()
    assert 1 - 1e-6 < highest <= 1 + 1e-12
    assert reward(np.stack(np.meshgrid(*[np.linspace(-2, 2, 401)] * 2), axis=-1)).max() <= 1 + 1e-12


def test_modes_and_the_names_of_the_high_ones_are_the_papers() -> None:
    np.testing.assert_allclose(MODES, CENTRES)
    directions = {"top": (0, 1), "right": (1, 0), "bottom": (0, -1), "left": (-1, 0)}
    assert list(HIGH_MODES) == list(directions)
    for name, direction in directions.items():
        np.testing.assert_allclose(MODES[HIGH_MODES[name]], np.multiply(2**0.5, direction))
    high = reward(MODES[list(HIGH_MODES.values())])
    # A low mode has half a high one's weight, and a little of its two neighbours'
    np.testing.assert_allclose(high, high[0])
    assert 0.5 < reward(np.ones(2)) / high[0] < 0.51


def test_importing_the_package_registers_the_environment() -> None:
    assert isinstance(make().unwrapped, sb3_lql.envs.MultimodalBandit)


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box")
@pytest.mark.filterwarnings("ignore:.*a probability distribution.*|.*symmetric and normalized space.*")
def test_environment_passes_the_checks_of_gymnasium_and_stable_baselines3() -> None:
    env = make(render_mode="rgb_array")
    gymnasium_check_env(env.unwrapped, skip_render_check=False)
    sb3_check_env(env.unwrapped)


def test_an_episode_is_one_step_and_its_observation_constant() -> None:
    env = make()
    first, _ = env.reset(seed=0)
    action = np.array([0.5, 1.5], np.float32)
    last, env_reward, terminated, truncated, _ = env.step(action)
    np.testing.assert_array_equal(first, last)
    assert (terminated, truncated) == (True, False)
    assert env_reward == reward(action.astype(np.float64))


@pytest.mark.parametrize("action", [(2.5, 0), (0, np.nan), (0, 0, 0), 1.0])
def test_action_outside_the_space_is_refused(action: Any) -> None:
    env = sb3_lql.envs.MultimodalBandit()
    with pytest.raises(ValueError, match=r"action=.* is not in Box.*pass two numbers within"):
        env.step(np.asarray(action))


def test_frame_shows_the_map_the_actions_and_the_newest_one() -> None:
    env = sb3_lql.envs.MultimodalBandit(render_mode="rgb_array")
    empty = env.render()
    assert empty is not None
    assert empty.shape == (400, 400, 3)
    assert empty.dtype == np.uint8
    brightness = empty.astype(int).sum(axis=-1)
    rows, columns = np.nonzero(brightness == brightness.max())
    # High modes lie on the axes, at sqrt(2) of 2 from the centre
    offset = 199.5 * 2**0.5 / 2
    distances = [
        np.hypot(columns - 199.5 - x, rows - 199.5 - y) for x, y in offset * np.array([*np.eye(2), *-np.eye(2)])
    ]
    assert np.min(distances, axis=0).max() < 10

    action = np.empty(2, np.float32)
    for action[:] in [(-2, 2), (2, -2)]:  # one array, which the caller goes on using
        env.reset()
        env.step(action)
    frame = env.render()
    assert frame is not None
    assert tuple(frame[0, 0]) == (255, 255, 255)  # older, top left
    assert tuple(frame[-1, -1]) == (255, 0, 0)  # newest, bottom right
    assert (frame != empty).any(axis=-1).sum() == 8  # two by two pixels at either corner
    np.testing.assert_array_equal(sb3_lql.envs.MultimodalBandit(render_mode="rgb_array").render(), empty)


def test_nothing_is_rendered_without_a_render_mode() -> None:
    assert sb3_lql.envs.MultimodalBandit().render() is None


def test_only_the_last_thousand_valid_actions_are_drawn() -> None:
    env = sb3_lql.envs.MultimodalBandit(render_mode="rgb_array")
    empty = env.render()
    env.step(np.full(2, -2, np.float32))
    with pytest.raises(ValueError, match="is not in Box"):
        env.step(np.full(2, 3, np.float32))
    frame = env.render()
    assert frame is not None
    assert tuple(frame[-1, 0]) == (255, 0, 0)
    for _ in range(1_000):
        env.step(np.full(2, 2, np.float32))
    frame = env.render()
    assert frame is not None
    assert empty is not None
    assert tuple(frame[-1, 0]) == tuple(empty[-1, 0])


@pytest.mark.parametrize("render_mode", ["human", "ansi"])
def test_other_render_mode_is_refused(render_mode: str) -> None:
    with pytest.raises(ValueError, match=f"render_mode='{render_mode}' is not supported: pass 'rgb_array' or None"):
        sb3_lql.envs.MultimodalBandit(render_mode=render_mode)


def test_human_mode_opens_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(render_mode="human")
    env.reset()
    env.step(np.zeros(2, np.float32))
    env.render()
    window = pygame.display.get_surface()
    assert window.get_size() == (400, 400)
    env.close()


def test_several_environments_run_side_by_side() -> None:
    env = make_vec_env(ENV_ID, n_envs=3)
    env.reset()
    actions = np.array([[1, 1], [0, 0], [2**0.5, 0]], np.float32)
    _, rewards, dones, _ = env.step(actions)
    np.testing.assert_allclose(rewards, reward(actions), rtol=1e-5)
    assert dones.all()
