"""
What users of SB3 expect of any algorithm: of each in the table but the Langevin ones, which the other files are about,
and the compared variants, which are in tests/baselines/test_compared.py.
"""

import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.algorithms import ALGORITHMS, LANGEVIN
from sb3_lql.baselines import DIPO, compared
from sb3_lql.engine.algorithm import Loss
from sb3_lql.engine.arguments import SharedArguments
from tests.baselines.checks import TINY, assert_replays, assert_resumes, assert_saved, networks_reached
from tests.test_deterministic import OddFeatures
from tests.test_dict_env import DictEnv
from tests.test_her import her_model
from tests.test_spaces import AnySpaces, box

#: Arguments, each of some of them, on which an update depends.
OF_UPDATES = {
    *("n_action_samples", "gamma", "reward_scale", "noise_scale", "clip_noisy_actions", "n_guesses", "velocity_weight"),
    *("standardize_as_meant", "repeat_critic_step", "gradient_scale", "max_grad_norm", "n_policy_samples"),
    *("n_behavior_samples", "n_uniform_actions", "n_action_gradient_steps", "action_learning_rate", "action_grad_norm"),
}
COMPARED = {name.lower() for name in compared.__all__}


@pytest.fixture(params=sorted(ALGORITHMS.keys() - LANGEVIN.keys() - COMPARED))
def algorithm(request: pytest.FixtureRequest) -> Any:
    return ALGORITHMS[request.param].cls


def small(algorithm: Any, policy: str = "MlpPolicy", env: Any = "Pendulum-v1", **kwargs: Any) -> Any:
    """A fast model of short chains, in which all that is done every so many updates is done at every second."""
    return algorithm(policy, env, **settings(algorithm) | kwargs)


def settings(algorithm: Any) -> dict[str, Any]:
    few = dict(n_denoising_steps=algorithm.min_denoising_steps, n_action_samples=2)
    return TINY | few | dict.fromkeys(algorithm.delays, 2)


def state(model: Any) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def unchanged(model: Any, before: dict[str, th.Tensor]) -> set[str]:
    """The tensors of the policy that are what they were."""
    return {name for name, value in model.policy.state_dict().items() if th.equal(value, before[name])}


def assert_learned(model: Any, before: dict[str, th.Tensor], n_updates: int) -> None:
    """All that is learned moved, and is a number."""
    assert model._n_updates == n_updates
    assert not {name for name in unchanged(model, before) if "_target" not in name}
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())


def leaves_the_box(algorithm: Any) -> bool:
    """Whether actions that are stored have noise that is not clipped, as some authors have it."""
    return not algorithm.defaults.get("clip_noisy_actions", True)


# Learning


@pytest.mark.parametrize("n_envs", [1, 2])
def test_it_learns_in_normalised_environments_with_callbacks(algorithm: Any, n_envs: int, tmp_path: Path) -> None:
    """Updates begin after 20 steps, one for each step of all environments together."""
    model = small(algorithm, env=VecNormalize(make_vec_env("Pendulum-v1", n_envs)))
    env = VecNormalize(make_vec_env("Pendulum-v1", env_kwargs=dict(max_episode_steps=5)), training=False)
    evaluation = EvalCallback(env, eval_freq=12 // n_envs, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    checkpoints = CheckpointCallback(22 // n_envs, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True)
    before = state(model)
    model.learn(24, callback=[evaluation, checkpoints])
    assert_learned(model, before, n_updates=4 // n_envs)
    assert model.num_timesteps == model.replay_buffer.size() * n_envs == 24
    evaluations = np.load(tmp_path / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [12, 24]
    assert evaluation.best_mean_reward == evaluations["results"].max()

    env = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_22_steps.pkl"), make_vec_env("Pendulum-v1", n_envs))
    resumed = algorithm.load(tmp_path / "rl_model_22_steps", env=env, device="cpu")
    resumed.load_replay_buffer(tmp_path / "rl_model_replay_buffer_22_steps")
    n_updates = resumed._n_updates
    resumed.learn(4, reset_num_timesteps=False)
    assert (resumed.num_timesteps, resumed._n_updates) == (26, n_updates + 4 // n_envs)


class OneGoal(gym.Env[np.ndarray, np.ndarray]):
    """Episodes of one step, rewarded by how near the action comes to 0.5."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), -((float(action[0]) - 0.5) ** 2), True, False, {}


def test_it_learns_where_the_reward_is(algorithm: Any) -> None:
    """Its actions are at most half as far from the goal as uniform ones, of which the mean distance is 0.625."""
    learning = dict(learning_rate=3e-3, actor_learning_rate=3e-3, learning_starts=200, batch_size=64, tau=0.05)
    chain = dict(n_denoising_steps=max(5, algorithm.min_denoising_steps), n_action_samples=8)
    known = inspect.signature(algorithm).parameters.keys()
    of_some = dict(initial_temperature=0.05, gradient_scale=1.0, n_guesses=16)
    own = {name: value for name, value in of_some.items() if name in known}
    larger = dict(buffer_size=2_000, policy_kwargs=dict(net_arch=[32, 32]))
    model = algorithm("MlpPolicy", OneGoal(), **TINY | larger | learning | chain | own).learn(700)
    actions, _ = model.predict(np.zeros((200, 1), np.float32))
    assert np.abs(actions - 0.5).mean() < 0.5 * 0.625


def test_n_step_returns_are_learned_from(algorithm: Any) -> None:
    model = small(algorithm, n_steps=3)
    before = state(model)
    assert_learned(model.learn(24), before, n_updates=4)
    assert model.replay_buffer._get_samples(np.arange(20)).discounts.unique().item() == pytest.approx(model.gamma**3)


def test_hindsight_goals_are_learned_from_or_refused_with_the_reason(algorithm: Any) -> None:
    if algorithm is DIPO:
        with pytest.raises(ValueError, match="replay_buffer_class=HerReplayBuffer keeps no second action"):
            her_model(algorithm, settings(algorithm))
        return
    model = her_model(algorithm, settings(algorithm), n_envs=2)
    before = state(model)
    assert_learned(model.learn(24), before, n_updates=2)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_images_are_learned_from(algorithm: Any, n_envs: int) -> None:
    image = dict(screen_height=36, screen_width=36, discrete=False)
    env = make_vec_env(FakeImageEnv, n_envs, env_kwargs=image)
    kwargs = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=8))
    assert_learns_from_images(small(algorithm, "CnnPolicy", env, buffer_size=60, policy_kwargs=kwargs))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_images_vectors_and_counts_are_learned_from_together(algorithm: Any, n_envs: int) -> None:
    kwargs = dict(net_arch=[8], features_extractor_kwargs=dict(cnn_output_dim=8))
    model = small(algorithm, "MultiInputPolicy", make_vec_env(DictEnv, n_envs), buffer_size=60, policy_kwargs=kwargs)
    assert_learns_from_images(model)
    obs, action = model.env.reset(), model.env.action_space.sample()[None].repeat(n_envs, axis=0)
    for part in obs:
        other = obs | {part: 1 - obs[part].clip(0, 1)}
        assert (model.q_value(obs, action) != model.q_value(other, action)).all(), part


def assert_learns_from_images(model: Any) -> None:
    """The first convolution and all of the denoiser, which works on what the convolutions make of an image."""
    before = state(model)
    model.learn(24)
    assert model._n_updates == 4 // model.n_envs
    still = unchanged(model, before)
    assert not {name for name in still if name.startswith("denoiser.") or name.endswith("cnn.0.weight")}
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())
    actions, _ = model.predict(model.env.reset(), deterministic=True)
    assert all(model.action_space.contains(action) for action in actions)


def test_layers_of_critic_and_denoiser_are_those_that_are_named(algorithm: Any) -> None:
    model = small(algorithm, policy_kwargs=dict(net_arch=dict(qf=[8, 4], pi=[6])))
    assert (model.policy.net_arch, model.policy.actor_arch) == ([8, 4], [6])
    for net_arch in (dict(qf=[8]), dict(qf=[8], pi=8), dict(qf=[8], pi=[6], vf=[4])):
        with pytest.raises(ValueError, match=r"net_arch=.*(lacks 'pi'|8, which is no|'vf', which).*pass a list of"):
            small(algorithm, policy_kwargs=dict(net_arch=net_arch))


def test_defaults_of_one_model_are_not_anothers(algorithm: Any) -> None:
    first, second = (algorithm("MlpPolicy", "Pendulum-v1", buffer_size=1) for _ in range(2))
    for name, value in vars(first).items():
        if name in algorithm.defaults and isinstance(value, dict):
            assert value is not getattr(second, name), name
            assert value is not algorithm.defaults[name], name


def test_a_misspelt_argument_of_its_own_is_named(algorithm: Any) -> None:
    shared = {"policy", *SharedArguments.__annotations__}
    own = [name for name in inspect.signature(algorithm).parameters if name not in shared]
    for name in own:
        if len(name) > 5:
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{name[:-1]}': did you mean '{name}'"):
                small(algorithm, **dict[str, Any]({name[:-1]: 1}))


def test_losses_reach_their_own_networks_only(algorithm: Any) -> None:
    """The critics alone train features."""
    kwargs = dict(net_arch=[8], features_extractor_class=OddFeatures)
    model = small(algorithm, policy_kwargs=kwargs).learn(24)
    model._n_updates = 1
    batch = model._sample(8)
    actions = model._next_actions(batch)
    assert not actions.requires_grad
    assert leaves_the_box(algorithm) or actions.abs().max() <= 1
    losses = list(model._before_td_step(batch))
    td_loss = model._td_loss(batch, model._estimate(batch), model._backup(batch, actions).detach())
    losses += [Loss("", "critic", td_loss), *model._after_td_step(batch, th.zeros(2, 8, 1), actions)]
    assert {loss.optimizer for loss in losses} >= {"critic", "actor"}
    own = dict(critic={"critic"}, actor={"denoiser"}, temperature={"log_temperature"})
    for loss in losses:
        assert networks_reached(model, loss.value) == own[loss.optimizer]


def test_a_loss_that_is_not_finite_stops_training_and_spoils_nothing(algorithm: Any) -> None:
    """Where all is due that is not done at every update, and where it is not."""
    model = small(algorithm).learn(24)
    buffer, good = model.replay_buffer, state(model)
    for spoilt in ("observations", "next_observations", "rewards"):
        whole = getattr(buffer, spoilt).copy()
        getattr(buffer, spoilt)[:] = np.nan
        for _ in range(2):
            message = rf"at update {model._n_updates + 1} \w+_loss was nan .* holds the last good parameters"
            with pytest.raises(ValueError, match=message):
                model.train(1, 8)
            changed = {name.split(".")[0] for name in good.keys() - unchanged(model, good)}
            # A denoiser that learns before the critics looks at observations only
            assert changed <= ({"denoiser"} if algorithm.actor_learns_first and spoilt != "observations" else set())
            assert all(value.isfinite().all() for value in model.policy.state_dict().values())
        getattr(buffer, spoilt)[:] = whole
    model.train(2, 8)
    assert not {name for name in unchanged(model, good) if name.startswith(("critic.", "denoiser."))}


# Acting


def test_actions_of_an_odd_box_stay_in_it(algorithm: Any) -> None:
    space = box([[-3.0, 0.0, -1e-3], [1.0, -1.0, 5.0]], [[1.0, 10.0, 1e3], [2.0, 1.0, 6.0]])
    env: Any = AnySpaces(space)  # which refuses actions beyond its bounds
    if leaves_the_box(algorithm):
        env = gym.wrappers.TransformAction(env, lambda action: action.clip(space.low, space.high), space)
    model = small(algorithm, env=env)
    before = state(model)
    assert_learned(model.learn(24), before, n_updates=4)
    assert model.replay_buffer.actions[:24].std(axis=0).min() > 0.0
    obs = np.stack([model.observation_space.sample() for _ in range(5)])
    for deterministic in (True, False):
        actions, again = (model.predict(obs, deterministic=deterministic)[0] for _ in range(2))
        assert actions.shape == (5, 2, 3)
        assert all(space.contains(action) for action in actions)
        assert np.array_equal(actions, again) == deterministic


def test_the_seed_decides_what_is_learned(algorithm: Any) -> None:
    first, same, other = (state(small(algorithm, seed=seed).learn(24)) for seed in (1, 1, 2))
    weights = "critic.layers.0.weight", "denoiser.network.0.weight"
    assert all(th.equal(first[name], same[name]) for name in first)
    assert not any(th.equal(first[name], other[name]) for name in weights)


def test_the_number_of_actions_to_choose_from_may_change(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(algorithm)
    drawn: list[int] = []
    plain_draw = model.policy.draw

    def draw(features: th.Tensor) -> Any:
        drawn.append(len(features))
        return plain_draw(features)

    monkeypatch.setattr(model.policy, "draw", draw)
    obs = model.observation_space.sample()
    model.predict(obs)
    model.n_action_samples = 5
    model.predict(obs)
    assert drawn == [2, 5]
    assert model.learn(24)._n_updates == 4
    with pytest.raises(ValueError, match="n_action_samples=0"):
        model.n_action_samples = 0


def test_q_value_is_the_smallest_critics_in_units_of_the_return(algorithm: Any) -> None:
    model = small(algorithm, reward_scale=0.5).learn(24)
    obs = np.stack([model.observation_space.sample() for _ in range(5)])
    actions = np.linspace(-2.0, 2.0, 5, dtype=np.float32)[:, None]
    with th.no_grad():
        expected = model.critic(th.as_tensor(obs), th.as_tensor(actions / 2)).amin(dim=0)[:, 0] / 0.5
    np.testing.assert_allclose(model.q_value(obs, actions), expected, rtol=1e-5, atol=1e-6)
    assert len(expected.unique()) == 5


# Files, and recorded updates


def test_all_that_it_learned_is_saved(algorithm: Any, tmp_path: Path) -> None:
    model = small(algorithm)
    before = state(model)
    assert_learned(model.learn(30), before, n_updates=10)  # or else a fresh model would do
    assert_saved(model, tmp_path)


def test_a_checkpoint_resumes_bit_for_bit(algorithm: Any, tmp_path: Path) -> None:
    assert_resumes(small(algorithm).learn(30), tmp_path)


def test_a_replayed_update_is_the_plain_one(algorithm: Any, recordings: list[Any]) -> None:
    assert_replays(algorithm, recordings, **settings(algorithm))


def test_an_update_is_recorded_anew_when_an_argument_changes(algorithm: Any) -> None:
    model = small(algorithm)
    names = inspect.signature(algorithm).parameters.keys() & OF_UPDATES
    assert len(names) >= 3
    for name in names:
        before, value = model._update_constants(), getattr(model, name)
        setattr(model, name, not value if isinstance(value, bool) else value + 1)
        assert model._update_constants() != before, name


def test_deterministic_actions_depend_on_the_observation_alone(algorithm: Any) -> None:
    """Not on what shares the batch, but for the last bits, nor on random numbers."""
    model = small(algorithm).learn(24)
    obs = np.stack([model.observation_space.sample() for _ in range(6)])
    together = model.predict(obs, deterministic=True)[0]
    th.manual_seed(5)
    alone = np.concatenate([model.predict(each[None], deterministic=True)[0] for each in obs])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    with_noise = model.policy.fixed_draws().shape[1] > model.policy.action_dim
    assert with_noise == (model.policy.fixed_noise and model.policy.process.n_noises > 0)
