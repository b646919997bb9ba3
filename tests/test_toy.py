"""An algorithm gets everything by stating its mathematics: nothing in the package knows of the toy."""

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize

import sb3_lql
from sb3_lql.algorithms import ALGORITHMS, Entry
from tests.saving import mutations
from tests.toy import Toy

TINY: dict[str, Any] = dict(
    policy_kwargs=dict(net_arch=[16]), buffer_size=500, learning_starts=20, batch_size=16, seed=0, device="cpu"
)


def make_env() -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))


@pytest.fixture
def model() -> Toy:
    return Toy("MlpPolicy", make_env(), policy_delay=3, **TINY).learn(60)


def same_parameters(one: Toy, other: Toy) -> None:
    """Those of networks, and the states of all optimisers."""
    for name, value in one.policy.state_dict().items():
        assert th.equal(value, other.policy.state_dict()[name]), name
    for name, optimizer in one.policy.optimizers.items():
        states = [list(each.state.values()) for each in (optimizer, other.policy.optimizers[name])]
        assert states[0], name
        for own, copied in zip(*states, strict=True):
            assert own.keys() == copied.keys()
            assert all(th.equal(own[key], copied[key]) for key in own)


def test_signature_and_help_show_every_argument() -> None:
    parameters = inspect.signature(Toy).parameters
    assert parameters["policy_delay"].default == 2
    assert parameters["buffer_size"].default == 1_000_000
    assert all(f":param {name}:" in (Toy.__doc__ or "") for name in parameters)
    with pytest.raises(TypeError, match="did you mean 'batch_size'"):
        Toy("MlpPolicy", None, batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="policy_delay"):
        Toy("MlpPolicy", "Pendulum-v1", policy_delay=0, **TINY)


def test_the_actor_and_its_temperature_learn_at_every_third_update_only() -> None:
    model = Toy("MlpPolicy", make_env(), policy_delay=3, **TINY | dict(learning_starts=1_000)).learn(20)
    changed = []
    for _ in range(6):
        before = copy.deepcopy(model.policy.state_dict())
        model.train(1, 16)
        now = model.policy.state_dict()
        names = ("actor.weight", "log_temperature", "critic.layers.0.weight")
        changed.append([not th.equal(before[name], now[name]) for name in names])
    assert changed == 2 * [[False, False, True], [False, False, True], [True, True, True]]


@pytest.mark.parametrize("path", ["model.zip", "model.safetensors"])
def test_all_that_it_learned_is_saved(model: Toy, tmp_path: Path, path: str) -> None:
    save, load = (model.save, Toy.load) if path.endswith("zip") else (model.save_safe, Toy.load_safe)
    save(tmp_path / path)
    loaded = load(tmp_path / path, env=make_env(), device="cpu")
    same_parameters(model, loaded)
    assert loaded.policy_delay == 3
    obs = model.observation_space.sample()
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("change", [dict(optimizers={}), dict(more="critic"), dict(more="actor_target")])
def test_a_safe_file_holds_the_optimisers_of_the_policy_and_no_others(
    model: Toy, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "model.safetensors"
    model.save_safe(path)
    document, tensors = mutations.unpack(path.read_bytes())
    others = document["optimizers"]
    assert list(others) == ["actor", "temperature"]
    others = change.get("optimizers", others | {change.get("more"): others["actor"]})
    path.write_bytes(mutations.pack(document | dict(optimizers=others), tensors))
    with pytest.raises(ValueError, match=r"model\.safetensors.*optimizers lacks"):
        Toy.load_safe(path)


def test_a_checkpoint_resumes_bit_for_bit(model: Toy, tmp_path: Path) -> None:
    model.save_checkpoint(tmp_path)
    model.train(7, 16)
    resumed = Toy.load_checkpoint(tmp_path, env=make_env(), device="cpu")
    resumed.train(7, 16)
    same_parameters(model, resumed)


def test_copies_learn_by_themselves(model: Toy) -> None:
    twin = copy.deepcopy(model)
    same_parameters(model, twin)
    twin.train(3, 16)
    assert not th.equal(model.policy.actor.weight, twin.policy.actor.weight)


def test_the_same_action_whatever_shares_its_batch(model: Toy) -> None:
    model.n_action_samples = 3
    observations = np.stack([model.observation_space.sample() for _ in range(5)])
    together, _ = model.predict(observations, deterministic=True)
    alone = [model.predict(observation, deterministic=True)[0] for observation in observations]
    np.testing.assert_array_equal(together, alone)


def test_recorded_updates_compute_what_plain_ones_do(
    recordings: list[Any], model: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are three recordings: of acting, and of updates with and without the delayed part."""
    plain = copy.deepcopy(model)
    plain.compile = False
    results = []
    for each in (model, plain):
        each.set_logger(Logger(None, []))
        th.manual_seed(0)
        np.random.seed(0)
        each.train(24, 16)
        results.append(dict(each.logger.name_to_value))
    assert len(recordings) == 3
    # A recorded learning rate is a tensor, of float32
    th.testing.assert_close(model.policy.state_dict(), plain.policy.state_dict(), atol=1e-6, rtol=1e-4)
    assert results[0] == pytest.approx(results[1], rel=1e-3)
    assert {"train/actor_loss", "train/temperature_loss", "train/critic_loss"} <= results[0].keys()


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's row in the table of algorithms."""
    pytest.importorskip("rl_zoo3")
    from sb3_lql.zoo import register

    monkeypatch.setitem(ALGORITHMS, "toy", Entry(Toy, "Toy"))
    register()


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The toy's YAML file."""
    path = tmp_path / "toy.yml"
    settings = dict(n_timesteps=60, policy="MlpPolicy", **TINY | dict(policy_kwargs="dict(net_arch=[16])"))
    path.write_text(yaml.safe_dump({"Pendulum-v1": {k: v for k, v in settings.items() if k not in ("seed", "device")}}))
    return str(path)


@pytest.mark.usefixtures("row")
def test_the_zoo_trains_it_and_saves_it(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_lql.zoo import cli

    options = ["train", "--algo", "toy", "--env", "Pendulum-v1", "--conf-file", config, "-f", str(tmp_path / "logs")]
    monkeypatch.setattr("sys.argv", ["sb3-lql", *options, "--eval-freq", "-1", "-params", "policy_delay:4"])
    cli.main()
    loaded = Toy.load(tmp_path / "logs" / "toy" / "Pendulum-v1_1" / "Pendulum-v1.zip", device="cpu")
    assert (loaded.policy_delay, loaded.num_timesteps) == (4, 60)
    assert loaded._n_updates > 0


@pytest.mark.usefixtures("row")
def test_the_benchmark_runs_it(config: str, tmp_path: Path) -> None:
    from sb3_lql.benchmark.comparison.spec import Algorithm, Run
    from sb3_lql.benchmark.comparison.training import train
    from sb3_lql.benchmark.json_files import read_json

    run = Run(Algorithm("Toy", "toy"), "Pendulum-v1", 1, 0, n_evaluations=5, n_eval_episodes=1)
    train(run, tmp_path / "run", config=config, device="cpu", n_threads=1)
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["status"], record["error"]) == ("finished", None)
    assert len(record["evaluations"]) == 6


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_has_no_form_for_export_says_so(model: Toy, tmp_path: Path, deterministic: bool) -> None:
    with pytest.raises(ValueError, match="override"):
        sb3_lql.export(model, tmp_path / "toy.onnx", deterministic=deterministic)
