"""SB3's zip files: one of another algorithm, or none at all, is said to be so before anything in it is run."""

import io
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from sb3_lql import LQL, NCLQL
from sb3_lql.baselines import DACER, DPMD, SDAC
from sb3_lql.baselines.compared import ComparedDACER
from sb3_lql.diffusion.family import DiffusionAlgorithm
from sb3_lql.saving.zip_files import ALGORITHMS

AGENTS = sorted(Path(__file__).parents[2].glob("agents/*/*lql/*/*.zip"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each algorithm, and with what is no file of a model."""
    folder = tmp_path_factory.mktemp("files")
    for other in (SAC, TD3, DDPG, PPO, A2C):
        other("MlpPolicy", "Pendulum-v1", device="cpu").save(folder / other.__name__)
    DQN("MlpPolicy", "CartPole-v1", device="cpu").save(folder / "DQN")
    for ours in (LQL, NCLQL):
        model = ours("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu")
        model.save(folder / ours.__name__)
        model.save(folder / f"{ours.__name__}-old", exclude=[ALGORITHMS])
    model.save_safe(folder / "safe")
    model.policy.save(str(folder / "policy.pth"))
    model.save_replay_buffer(folder / "buffer")
    content = (folder / "NCLQL.zip").read_bytes()
    (folder / "empty.zip").write_bytes(b"")
    (folder / "cut.zip").write_bytes(content[: len(content) // 2])
    (folder / "flipped.zip").write_bytes(content.replace(b"reward_scale", b"reward_sca1e", 1))
    return folder


def both_ways(load: Callable[..., Any], path: Path) -> list[Callable[[], Any]]:
    return [lambda: load(path), lambda: load(io.BytesIO(path.read_bytes()))]


@pytest.mark.parametrize("other", ["SAC", "TD3", "DDPG", "PPO", "A2C", "DQN"])
def test_a_file_of_another_algorithm_is_named_as_such(files: Path, algorithm: Any, other: str) -> None:
    for load in both_ways(algorithm.load, files / f"{other}.zip"):
        with pytest.raises(ValueError, match=rf"holds a model of .*{other}.*, not of {algorithm.__name__}"):
            load()


@pytest.mark.parametrize("age", ["", "-old"])
def test_neither_of_ours_is_loaded_as_the_other(files: Path, algorithm: Any, age: str) -> None:
    other = NCLQL if algorithm is LQL else LQL
    for load in both_ways(algorithm.load, files / f"{other.__name__}{age}.zip"):
        with pytest.raises(ValueError, match=f"holds a model of {other.__name__}, not of {algorithm.__name__}"):
            load()
    for load in both_ways(algorithm.load, files / f"{algorithm.__name__}{age}.zip"):
        assert type(load()) is algorithm


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("safe.safetensors", "use NCLQL.load_safe"),
        ("policy.pth", "a zip file without a model"),
        ("buffer.pkl", "is not a zip file"),
        ("empty.zip", "is not a zip file"),
        ("cut.zip", "a damaged or incomplete zip file.*copy it again"),
        ("flipped.zip", "a damaged or incomplete zip file.*copy it again"),
    ],
)
def test_what_is_no_whole_file_of_a_model_is_said_to_be_none(files: Path, name: str, pattern: str) -> None:
    for load in both_ways(NCLQL.load, files / name):
        with pytest.raises(ValueError, match=pattern):
            load()


def test_a_folder_and_a_name_of_nothing_are_refused(files: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder.*load_checkpoint"):
        NCLQL.load(files)
    with pytest.raises(FileNotFoundError, match=r"nothing\.zip"):
        NCLQL.load(files / "nothing")


def test_an_open_file_is_read_from_where_it_is(files: Path) -> None:
    with (files / "NCLQL.zip").open("rb") as file:
        assert NCLQL.load(file).num_timesteps == 0


def test_classes_of_ones_own_and_of_the_algorithm_load_each_others_files(files: Path, tmp_path: Path) -> None:
    class Mine(NCLQL):
        pass

    class Renamed(NCLQL):
        pass

    mine = Mine.load(files / "NCLQL")
    mine.save(tmp_path / "mine")
    classes: list[type[NCLQL]] = [Mine, Renamed, NCLQL]
    assert [type(each.load(tmp_path / "mine")) for each in classes] == classes
    with pytest.raises(ValueError, match="holds a model of Mine, not of LQL"):
        LQL.load(tmp_path / "mine")
    NCLQL.load(tmp_path / "mine").save(tmp_path / "again")
    with pytest.raises(ValueError, match="holds a model of NCLQL, not of LQL"):
        LQL.load(tmp_path / "again")


def test_algorithms_of_ones_own_in_one_family_do_not_load_each_others_files(tmp_path: Path) -> None:
    class Mine(DiffusionAlgorithm):
        def __init__(self, policy: Any, env: Any, learning_rate: float = 1e-3, **kwargs: Any) -> None:
            super().__init__(policy, env, learning_rate, **kwargs)

    class Other(Mine):
        pass

    class Another(DiffusionAlgorithm):
        __init__ = Mine.__init__

    arguments: dict[str, Any] = dict(buffer_size=10, device="cpu", policy_kwargs=dict(net_arch=[4]))
    Mine("MlpPolicy", "Pendulum-v1", **arguments).save(tmp_path / "mine")
    assert [type(each.load(tmp_path / "mine")) for each in (Mine, Other)] == [Mine, Other]
    with pytest.raises(ValueError, match="holds a model of Mine, not of Another"):
        Another.load(tmp_path / "mine")


def test_whatever_a_file_holds_may_be_changed(tmp_path: Path) -> None:
    """As SB3 allows; the RL Zoo passes ``seed`` and ``buffer_size`` to every class."""

    class Fixed(NCLQL):
        def __init__(self, policy: Any, env: Any, device: str = "cpu", _init_setup_model: bool = True) -> None:
            super().__init__(policy, env, device=device, buffer_size=10, _init_setup_model=_init_setup_model)
            self.mine = 1

    Fixed("MlpPolicy", "Pendulum-v1").save(tmp_path / "model")
    loaded = Fixed.load(tmp_path / "model", seed=0, buffer_size=1, mine=2, num_timesteps=7)
    assert (loaded.seed, loaded.buffer_size, loaded.mine, loaded.num_timesteps) == (0, 1, 2, 7)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mien'"):
        Fixed.load(tmp_path / "model", mien=2)
    with pytest.raises(TypeError, match="did you mean 'custom_objects'"):
        NCLQL.load(tmp_path / "model", custom_object={})


@pytest.mark.parametrize(("of", "by"), list(permutations([DACER, ComparedDACER, SDAC, DPMD], 2)))
def test_of_diffusion_algorithms_none_loads_anothers_files(of: Any, by: Any, tmp_path: Path) -> None:
    model = of("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu", policy_kwargs=dict(net_arch=[4]))
    model.save(tmp_path / "model")
    assert type(of.load(tmp_path / "model")) is of
    with pytest.raises(ValueError, match=f"holds a model of {of.__name__}, not of {by.__name__}"):
        by.load(tmp_path / "model")


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_the_agents_of_earlier_versions_load(path: Path) -> None:
    algorithm: Any = {"lql": LQL, "nclql": NCLQL}[path.parents[1].name]
    model = algorithm.load(path, device="cpu")
    action, _ = model.predict(np.zeros(model.observation_space.shape or (), np.float32), deterministic=True)
    assert model.action_space.contains(action)


def test_there_are_such_agents() -> None:
    assert AGENTS
