"""Safe files: what comes back, what is asked for, and what is refused of honest people."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, VecTransposeImage
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy
from torch import nn

from sb3_lql import LQL, NCLQL
from sb3_lql.common.device_buffers import DeviceReplayBuffer
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.saving.normalization import normalization_state, without_environments
from sb3_lql.saving.safe import algorithm_of, load_safe, save_safe
from sb3_lql.saving.safe.arguments import argument_names
from tests.saving import mutations
from tests.test_deterministic import batch_of
from tests.test_dict_env import DictEnv
from tests.test_save_load import same_state
from tests.test_spaces import AnySpaces, box
from tests.test_train_eval_mode import FlattenWithBatchNorm

SMALL: dict[str, Any] = dict(learning_starts=6, buffer_size=40, batch_size=4, n_langevin_steps=2, device="cpu", seed=0)

#: In an order that is not the alphabet's.
COUNTS = spaces.Dict(
    [
        ("one", spaces.Discrete(3, start=5)),
        ("some", spaces.MultiDiscrete([2, 3], start=[-1, 2])),
        ("bits", spaces.MultiBinary([2, 2])),
    ]
)


class OwnPolicy(LangevinPolicy):
    """A policy that is no alias."""


def spaces_env(action_space: Any = None, observation_space: Any = None) -> VecEnv:
    return DummyVecEnv([lambda: AnySpaces(action_space or box([-1.0], [1.0]), observation_space)])


def normalized(env: VecEnv, **kwargs: Any) -> VecEnv:
    return VecNormalize(env, **kwargs)


def decaying(_: float) -> float:
    return 1e-3


#: By what must come back: policy, environments, arguments, and what is code and must be supplied.
CASES: dict[str, tuple[str, Any, dict[str, Any], dict[str, Any]]] = {
    "vectors": ("MlpPolicy", lambda: make_vec_env("Pendulum-v1"), {}, {}),
    "images": (
        "CnnPolicy",
        lambda: make_vec_env(FakeImageEnv, env_kwargs=dict(screen_height=36, screen_width=36, discrete=False)),
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=8))),
        {},
    ),
    "vector, image and discrete": (
        "MultiInputPolicy",
        lambda: make_vec_env(DictEnv, n_envs=2),
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(cnn_output_dim=8))),
        {},
    ),
    "normalised": ("MlpPolicy", lambda: normalized(make_vec_env("Pendulum-v1")), {}, {}),
    "normalised vectors beside images": (
        "MultiInputPolicy",
        lambda: normalized(VecTransposeImage(make_vec_env(DictEnv)), norm_obs_keys=["vector"], clip_obs=float("inf")),
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(cnn_output_dim=8))),
        {},
    ),
    "normalised rewards": ("MlpPolicy", lambda: normalized(make_vec_env("Pendulum-v1"), norm_obs=False), {}, {}),
    "hindsight": (
        "MultiInputPolicy",
        lambda: make_vec_env(BitFlippingEnv, env_kwargs=dict(n_bits=3, continuous=True)),
        dict(
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs=dict(n_sampled_goal=2, goal_selection_strategy=GoalSelectionStrategy.FINAL),
        ),
        {},
    ),
    "float64 actions": ("MlpPolicy", lambda: spaces_env(box([-0.1, -1e30], [1e-17, 1e30], np.float64)), {}, {}),
    "a matrix of actions, and counts": (
        "MultiInputPolicy",
        lambda: spaces_env(box(np.full((2, 2), -2.0), np.arange(4.0).reshape(2, 2)), COUNTS),
        {},
        {},
    ),
    "n-step returns": ("MlpPolicy", lambda: make_vec_env("Pendulum-v1"), dict(n_steps=2, gamma=0.5), {}),
    "a buffer on the device": (
        "MlpPolicy",
        lambda: make_vec_env("Pendulum-v1"),
        dict(replay_buffer_class=DeviceReplayBuffer, train_freq=(2, "step"), gradient_steps=-1),
        {},
    ),
    "networks of choice": (
        "MlpPolicy",
        lambda: make_vec_env("Pendulum-v1"),
        dict(
            policy_kwargs=dict(
                net_arch=dict(qf=[8, 4], pi=[2]),
                activation_fn=nn.PReLU,
                n_critics=3,
                optimizer_class=th.optim.AdamW,
                optimizer_kwargs=dict(betas=(0.5, 0.9), amsgrad=True),
            )
        ),
        {},
    ),
    "momentum": (
        "MlpPolicy",
        lambda: make_vec_env("Pendulum-v1"),
        dict(
            policy_kwargs=dict(net_arch=[], optimizer_class=th.optim.SGD, optimizer_kwargs=dict(momentum=0.9)),
            learning_rate=LinearSchedule(1e-3, 0.0, 0.7),
        ),
        {},
    ),
    "action noise": (
        "MlpPolicy",
        lambda: make_vec_env("Pendulum-v1"),
        dict(action_noise=NormalActionNoise(np.zeros(1, np.float32), np.full(1, 0.1)), stats_window_size=7),
        {},
    ),
    "batch normalisation": (
        "MlpPolicy",
        lambda: make_vec_env("Pendulum-v1"),
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_class=FlattenWithBatchNorm)),
        {"policy_kwargs.features_extractor_class": FlattenWithBatchNorm},
    ),
    "a policy and a schedule of one's own": (
        OwnPolicy,  # type: ignore[dict-item]
        lambda: make_vec_env("Pendulum-v1"),
        dict(learning_rate=decaying),
        {"policy_class": OwnPolicy, "learning_rate": decaying},
    ),
}


def trained(algorithm: Any, case: str) -> Any:
    """A model a few updates old, of which online, target and optimiser's state all differ from a fresh one's."""
    policy, make_env, kwargs, _ = CASES[case]
    settings = SMALL | dict(policy_kwargs=dict(net_arch=[8])) | copy.deepcopy(kwargs)
    return algorithm(policy, make_env(), **settings).learn(12)


def load(algorithm: Any, case: str, path: Path, **kwargs: Any) -> Any:
    _, make_env, _, custom_objects = CASES[case]
    env = kwargs.pop("env") if "env" in kwargs else make_env()
    return load_safe(algorithm, path, env, custom_objects=custom_objects, device="cpu", **kwargs)


def reloaded(model: Any, case: str, folder: Path, **kwargs: Any) -> Any:
    save_safe(model, folder / "model")
    return load(type(model), case, folder / "model", **kwargs)


def pendulum(algorithm: Any, env: Any = "Pendulum-v1", **kwargs: Any) -> Any:
    return algorithm("MlpPolicy", env, **(SMALL | dict(policy_kwargs=dict(net_arch=[8])) | kwargs))


def plain(value: Any) -> Any:
    """Something to compare, of what has no equality of its own."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    return (type(value), plain(vars(value))) if hasattr(value, "__dict__") and not isinstance(value, type) else value


#: The cases that are no matter of arguments only, which both algorithms treat alike.
FOR_BOTH = {"vectors", "images", "vector, image and discrete", "normalised", "hindsight", "float64 actions"}
MODELS = [(algorithm, case) for case in CASES for algorithm in ([LQL, NCLQL] if case in FOR_BOTH else [NCLQL])]


@pytest.fixture(scope="module", params=MODELS, ids=[f"{algorithm.__name__}-{case}" for algorithm, case in MODELS])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained model, which no test may change, and a function that loads it anew."""
    algorithm, case = request.param
    model = trained(algorithm, case)
    path = tmp_path_factory.mktemp("saved") / "model"
    save_safe(model, path)
    return model, lambda: load(algorithm, case, path)


@pytest.mark.filterwarnings("error")
def test_everything_comes_back_bit_for_bit(saved: Any) -> None:
    model, load_again = saved
    loaded = load_again()
    assert same_state(loaded.get_parameters(), model.get_parameters())
    assert type(loaded.policy) is type(model.policy)
    assert loaded.policy.optimizer.state_dict()["state"]
    for name in set(argument_names(type(model))) - {"stats_window_size", "replay_buffer_kwargs"}:
        assert plain(getattr(loaded, name)) == plain(getattr(model, name)), name
    assert loaded._stats_window_size == model._stats_window_size
    counters = ("num_timesteps", "_total_timesteps", "_episode_num", "_n_updates", "_current_progress_remaining")
    assert [getattr(loaded, name) for name in counters] == [getattr(model, name) for name in counters]
    assert loaded.observation_space == model.observation_space
    if isinstance(model.observation_space, spaces.Dict):
        assert list(loaded.observation_space.spaces) == list(model.observation_space.spaces)
    for bound in ("low", "high"):
        assert plain(getattr(loaded.action_space, bound)) == plain(getattr(model.action_space, bound))


def test_a_loaded_model_acts_the_same(saved: Any) -> None:
    model, load_again = saved
    loaded = load_again()
    model.observation_space.seed(0)
    observations = [model.observation_space.sample() for _ in range(3)]
    for deterministic in (True, False):
        actions = []
        for each in (model, loaded):
            th.manual_seed(3)
            actions.append([each.predict(obs, deterministic=deterministic)[0] for obs in observations])
        np.testing.assert_array_equal(actions[0], actions[1])


def test_a_loaded_model_goes_on_learning_without_random_actions(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, load_again = saved
    loaded = load_again()
    monkeypatch.setattr(loaded.action_space, "sample", lambda: pytest.fail("a random action was taken"))
    loaded.learn(10, reset_num_timesteps=False)
    assert loaded.num_timesteps == model.num_timesteps + 10
    assert loaded._n_updates > model._n_updates


def test_further_updates_are_the_same_bit_for_bit(saved: Any) -> None:
    model, load_again = saved
    before = copy.deepcopy(model.get_parameters())
    n_updates = model._n_updates
    loaded = load_again()
    loaded.replay_buffer = model.replay_buffer
    after = []
    try:
        for each in (model, loaded):
            th.manual_seed(5)
            np.random.seed(5)
            each.train(gradient_steps=4, batch_size=4)
            after.append(copy.deepcopy(each.get_parameters()))
    finally:
        model.set_parameters(before, device="cpu")
        model._n_updates = n_updates
    assert same_state(*after)
    assert not same_state(after[0], before)
    assert loaded._n_updates == n_updates + 4


@pytest.mark.parametrize("wrapped", [True, False])
def test_statistics_come_back_whether_the_environments_are_wrapped_or_not(tmp_path: Path, wrapped: bool) -> None:
    model = trained(NCLQL, "normalised")
    env = make_vec_env("Pendulum-v1")
    env = VecNormalize(env, clip_obs=3.0) if wrapped else env
    loaded = reloaded(model, "normalised", tmp_path, env=env)
    old, new = model.get_vec_normalize_env(), loaded.get_vec_normalize_env()
    for name in ("obs_rms", "ret_rms"):
        for moment in ("mean", "var", "count"):
            np.testing.assert_array_equal(getattr(getattr(new, name), moment), getattr(getattr(old, name), moment))
    assert new.clip_obs == (3.0 if wrapped else 10.0)  # whoever wraps the environments chooses
    new.obs_rms.mean += 1.0
    assert not np.array_equal(new.obs_rms.mean, old.obs_rms.mean)


def test_statistics_of_other_observations_are_refused(tmp_path: Path) -> None:
    model = trained(NCLQL, "normalised")
    env = VecNormalize(make_vec_env("Pendulum-v1"), norm_obs=False)
    with pytest.raises(ValueError, match="wrap the environments as they were"):
        reloaded(model, "normalised", tmp_path, env=env)


def test_without_an_environment_a_model_acts(algorithm: Any, tmp_path: Path) -> None:
    model = trained(algorithm, "normalised")
    loaded = reloaded(model, "normalised", tmp_path, env=None)
    assert loaded.env is None
    obs = np.array([0.5, 0.5, 3.0], np.float32)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("case", ["normalised", "normalised vectors beside images", "normalised rewards"])
def test_without_an_environment_statistics_stay_with_the_model(case: str, tmp_path: Path) -> None:
    model = trained(NCLQL, case)
    loaded = reloaded(model, case, tmp_path, env=None)
    observation = model.get_vec_normalize_env().get_original_obs()
    normalize = [each.get_vec_normalize_env().normalize_obs for each in (model, loaded)]
    for normalized_obs in zip(*(_parts(each(observation)) for each in normalize), strict=True):
        np.testing.assert_array_equal(*normalized_obs)
    loaded.save_safe(tmp_path / "again")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def _parts(observation: Any) -> list[np.ndarray]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def test_spaces_of_images_stay_as_they_are_beside_their_statistics() -> None:
    space = spaces.Dict(img=spaces.Box(0, 255, (36, 36, 3), np.uint8))
    before = copy.deepcopy(space)
    env: Any = normalized(spaces_env(observation_space=copy.deepcopy(space)))
    without_environments(space, env.action_space, *normalization_state(env))
    assert space == before != env.observation_space


@pytest.mark.parametrize("wrapped", [True, False])
def test_statistics_kept_without_an_environment_give_way_to_those_of_one(tmp_path: Path, wrapped: bool) -> None:
    loaded = reloaded(trained(NCLQL, "normalised"), "normalised", tmp_path, env=None)
    env = normalized(make_vec_env("Pendulum-v1")) if wrapped else make_vec_env("Pendulum-v1")
    loaded.set_env(env)
    assert loaded.get_vec_normalize_env() is (env if wrapped else None)


def test_a_model_that_keeps_statistics_is_saved_as_a_zip_file(tmp_path: Path) -> None:
    loaded = reloaded(trained(NCLQL, "normalised"), "normalised", tmp_path, env=None)
    loaded.save(tmp_path / "model.zip")
    assert same_state(NCLQL.load(tmp_path / "model.zip", device="cpu").get_parameters(), loaded.get_parameters())


def test_hindsight_without_an_environment_acts_until_there_is_one(tmp_path: Path) -> None:
    model = trained(NCLQL, "hindsight")
    loaded = reloaded(model, "hindsight", tmp_path, env=None)
    obs = batch_of(model.observation_space, 1)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    loaded.set_env(model.env)
    assert loaded.learn(1).replay_buffer.env is model.env


def test_a_file_that_asks_for_a_hundred_million_transitions_with_hindsight_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = trained(NCLQL, "hindsight")
    save_safe(model, path)
    document, tensors = mutations.unpack(path.read_bytes())
    path.write_bytes(mutations.pack(mutations.replaced(document, ("arguments", "buffer_size"), 10**8), tensors))
    with pytest.raises(ValueError, match=r"buffer_size=100000000 is above 10000000"):
        load_safe(NCLQL, path, env=model.env)
    assert load_safe(NCLQL, path, env=model.env, buffer_size=50).buffer_size == 50


#: What a file asks for, as a number that is too much by itself or with those beside it.
TOO_MUCH: dict[str, dict[str, Any]] = {
    "batch_size": dict(batch_size=10**7),
    "n_steps": dict(n_steps=10**5),
    "gradient_steps": dict(gradient_steps=10**6),
    "batch_size=50000": dict(batch_size=50_000, n_steps=5_000),
    "batch_size=500000": dict(batch_size=500_000, n_langevin_steps=200),
    "a chain takes 5000 steps": dict(n_langevin_steps=500),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_file_that_asks_for_huge_updates_is_refused_and_whoever_loads_it_may_ask_for_others(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_safe(pendulum(NCLQL), path)
    document, tensors = mutations.unpack(path.read_bytes())
    document["arguments"] |= TOO_MUCH[name]
    path.write_bytes(mutations.pack(document, tensors))
    argument = next(iter(TOO_MUCH[name]))
    with pytest.raises(
        ValueError, match=rf"(?s)model\.safetensors.*{name}.*pass .*{argument}=\.\.\. .*to ask for more"
    ):
        load_safe(NCLQL, path, device="cpu")
    for chosen in (8, TOO_MUCH[name][argument]):  # the same, if that is meant
        kwargs: dict[str, Any] = {argument: chosen}
        assert getattr(load_safe(NCLQL, path, device="cpu", **kwargs), argument) == chosen


def test_a_file_that_asks_for_huge_actions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    wide = spaces.Box(-1.0, 1.0, (3_000,), np.float32)
    settings = SMALL | dict(buffer_size=2, policy_kwargs=dict(net_arch=[2]))
    save_safe(LQL("MlpPolicy", spaces_env(wide), **settings), path)
    document, tensors = mutations.unpack(path.read_bytes())
    document["arguments"] |= dict(n_action_samples=2_000, n_langevin_steps=50)
    path.write_bytes(mutations.pack(document, tensors))
    with pytest.raises(ValueError, match=r"n_action_samples=2000,.*makes an action of 1\.\d GB"):
        load_safe(LQL, path, device="cpu")


def test_observations_that_no_network_takes_are_refused_in_files_too(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_safe(pendulum(NCLQL), path)
    document, tensors = mutations.unpack(path.read_bytes())
    document["observation_space"] = {"type": "Dict", "spaces": []}
    path.write_bytes(mutations.pack(document, tensors))
    with pytest.raises(ValueError, match=r"observation_space=Dict\(\) is empty"):
        load_safe(NCLQL, path, device="cpu")


def test_a_model_that_learned_nothing_yet_comes_back(algorithm: Any, tmp_path: Path) -> None:
    model = pendulum(algorithm)
    loaded = reloaded(model, "vectors", tmp_path)
    assert same_state(loaded.get_parameters(), model.get_parameters())
    assert loaded.learn(12)._n_updates == 6


def test_arguments_may_be_changed(tmp_path: Path) -> None:
    changes: dict[str, Any] = dict(learning_rate=0.5, buffer_size=50, seed=7, verbose=1, n_steps=3)
    log = str(tmp_path / "log")
    loaded = reloaded(trained(NCLQL, "vectors"), "vectors", tmp_path, tensorboard_log=log, **changes)
    assert {name: getattr(loaded, name) for name in changes} == changes
    assert (loaded.tensorboard_log, loaded.replay_buffer.buffer_size, loaded.replay_buffer.n_steps) == (log, 50, 3)
    assert loaded.lr_schedule(1.0) == 0.5


def test_neither_folder_nor_device_come_from_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder for logs"
    model = pendulum(NCLQL, tensorboard_log=str(folder))
    assert reloaded(model, "vectors", tmp_path).tensorboard_log is None
    content = (tmp_path / "model.safetensors").read_bytes()
    assert not any(text in content for text in (b"folder for logs", b"tensorboard", b"device", b"cpu"))


def test_a_bad_change_is_refused(tmp_path: Path) -> None:
    save_safe(pendulum(NCLQL), tmp_path / "model")
    with pytest.raises(ValueError, match=r"model\.safetensors.*learning_rate=-1"):
        load_safe(NCLQL, tmp_path / "model", learning_rate=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'learnig_rate': did you mean 'learning_rate'"):
        load_safe(NCLQL, tmp_path / "model", learnig_rate=1e-3)


@pytest.mark.parametrize("case", ["batch normalisation", "a policy and a schedule of one's own"])
def test_code_that_is_missing_is_named(case: str, tmp_path: Path) -> None:
    save_safe(trained(NCLQL, case), tmp_path / "model")
    custom_objects = CASES[case][3]
    for missing in custom_objects:
        rest = {name: code for name, code in custom_objects.items() if name != missing}
        with pytest.raises(ValueError, match=rf"{missing} was code.*custom_objects=\{{'{missing}'"):
            load_safe(NCLQL, tmp_path / "model", custom_objects=rest)


def test_a_whole_argument_may_be_supplied(tmp_path: Path) -> None:
    model = trained(NCLQL, "batch normalisation")
    save_safe(model, tmp_path / "model")
    loaded = load_safe(NCLQL, tmp_path / "model", custom_objects=dict(policy_kwargs=model.policy_kwargs))
    assert same_state(loaded.get_parameters(), model.get_parameters())


def test_code_for_nothing_is_refused(tmp_path: Path) -> None:
    save_safe(pendulum(NCLQL), tmp_path / "model")
    with pytest.raises(ValueError, match=r"custom_objects has \['lerning_rate'\]"):
        load_safe(NCLQL, tmp_path / "model", custom_objects=dict(lerning_rate=decaying))


def test_other_networks_than_the_files_are_refused(tmp_path: Path) -> None:
    save_safe(pendulum(NCLQL), tmp_path / "model")
    with pytest.raises(ValueError, match=r"policy\.critic\.layers\.0\.weight is \(2, \d+, 8\).*not \(2, \d+, 9\)"):
        load_safe(NCLQL, tmp_path / "model", policy_kwargs=dict(net_arch=[9]))


def test_other_environments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spaces do not match"):
        reloaded(trained(NCLQL, "vectors"), "vectors", tmp_path, env=spaces_env())


def test_another_number_of_environments_is_taken(tmp_path: Path) -> None:
    loaded = reloaded(trained(NCLQL, "vectors"), "vectors", tmp_path, env=make_vec_env("Pendulum-v1", n_envs=3))
    assert loaded.n_envs == loaded.replay_buffer.n_envs == 3
    loaded.learn(12)


def test_the_class_must_be_that_of_the_file(tmp_path: Path) -> None:
    save_safe(pendulum(LQL), tmp_path / "model")
    with pytest.raises(ValueError, match="of 'LQL', not of NCLQL"):
        load_safe(NCLQL, tmp_path / "model")


def test_a_class_of_ones_own_keeps_its_arguments(tmp_path: Path) -> None:
    class Greedy(NCLQL):
        def __init__(
            self, policy: Any, env: Any, greed: float = 1.0, _init_setup_model: bool = True, **kwargs: Any
        ) -> None:
            super().__init__(policy, env, _init_setup_model=False, **kwargs)
            self.greed = greed
            if _init_setup_model:
                self._setup_model()

    save_safe(pendulum(Greedy, greed=3.0, tau=0.25), tmp_path / "model")
    loaded = load_safe(Greedy, tmp_path / "model")
    assert (loaded.greed, loaded.tau) == (3.0, 0.25)


def test_rl_zoos_schedule_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    utils = pytest.importorskip("rl_zoo3.utils")
    schedule = utils.linear_schedule(7.3e-4)
    loaded = reloaded(pendulum(NCLQL, learning_rate=schedule), "vectors", tmp_path)
    progresses = np.random.default_rng(0).uniform(size=100)
    assert [loaded.lr_schedule(p) for p in progresses] == [schedule(p) for p in progresses]
    again = reloaded(loaded, "vectors", tmp_path)
    assert again.lr_schedule(0.3) == schedule(0.3)


def test_a_namesake_of_rl_zoos_schedule_is_code(tmp_path: Path) -> None:
    class SimpleLinearSchedule:
        def __init__(self) -> None:
            self.initial_value = 1e-3

        def __call__(self, progress: float) -> float:
            return self.initial_value * progress**2

    save_safe(pendulum(NCLQL, learning_rate=SimpleLinearSchedule()), tmp_path / "model")
    with pytest.raises(ValueError, match="learning_rate was code"):
        load_safe(NCLQL, tmp_path / "model")


def test_noise_of_several_environments_comes_back(tmp_path: Path) -> None:
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1, np.float32), 0.3 * np.ones(1), initial_noise=np.ones(1))
    model = pendulum(NCLQL, make_vec_env("Pendulum-v1", n_envs=2), action_noise=noise).learn(8)
    loaded = reloaded(model, "vectors", tmp_path, env=make_vec_env("Pendulum-v1", n_envs=3)).learn(9)
    assert len(loaded.action_noise.noises) == 3
    again = loaded.action_noise.base_noise
    assert plain({**vars(again), "noise_prev": 0}) == plain({**vars(noise), "noise_prev": 0})


def test_files_are_the_same_for_the_same_model(tmp_path: Path) -> None:
    model = trained(NCLQL, "vectors")
    state = th.get_rng_state()
    save_safe(model, tmp_path / "first")
    save_safe(reloaded(model, "vectors", tmp_path), str(tmp_path / "second.other"))
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.other").read_bytes()
    model = trained(NCLQL, "vectors")
    save_safe(model, tmp_path / "third")
    assert th.equal(th.get_rng_state(), state)  # saving draws nothing


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model = pendulum(NCLQL)
    save_safe(model, tmp_path / "model")
    before = (tmp_path / "model.safetensors").read_bytes()
    with th.no_grad():
        next(model.critic.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        save_safe(model, tmp_path / "model")
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_chains_too_long_to_be_loaded_are_not_saved(tmp_path: Path) -> None:
    model = pendulum(NCLQL, n_langevin_steps=50, n_noise_levels=2, n_action_samples=1001)
    with pytest.raises(ValueError, match="an action takes 1001 chains of 100 steps, and may take 100000 steps"):
        save_safe(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    model.n_action_samples = 1000
    save_safe(model, tmp_path / "model")


@pytest.mark.parametrize("deterministic", [True, False])
def test_weights_that_overflow_make_an_error_and_no_action(algorithm: Any, deterministic: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_safe(pendulum(algorithm, policy_kwargs=dict(net_arch=[8] * 10)), path)  # beyond float64, too
    document, tensors = mutations.unpack(path.read_bytes())
    weights = {name: 1e38 * value for name, value in tensors.items() if name.startswith("policy.critic.")}
    path.write_bytes(mutations.pack(document, tensors | weights))
    forged = load_safe(algorithm, path, device="cpu")
    with pytest.raises(ValueError, match=r"action\[0\] is nan\. A network overflows"):
        forged.predict(np.ones(3, np.float32), deterministic=deterministic)


def test_a_file_says_which_algorithm_it_is_of(algorithm: Any, tmp_path: Path) -> None:
    save_safe(pendulum(algorithm), tmp_path / "model")
    assert algorithm_of(tmp_path / "model") == algorithm.__name__
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be loaded: it is damaged"):
        algorithm_of(tmp_path / "model")


def test_a_name_of_nothing_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist"):
        load_safe(NCLQL, tmp_path / "model")
    (tmp_path / "folder.x").mkdir()
    with pytest.raises(ValueError, match=r"folder\.x cannot be loaded.*a folder"):
        load_safe(NCLQL, tmp_path / "folder.x")


def test_models_have_methods_for_it(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=True, **tiny).learn(60)
    model.save_safe(tmp_path / "model")
    again = algorithm.load_safe(tmp_path / "model", env=model.env, device="cpu", gamma=0.5)
    assert (again.num_timesteps, again._n_updates, again.gamma) == (60, 10, 0.5)
    observation = np.zeros(3, np.float32)
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
