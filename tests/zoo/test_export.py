"""``sb3-lql export`` as a user runs it, on agents as ``sb3-lql train`` leaves them."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

pytest.importorskip("rl_zoo3")

from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql import LQL, NCLQL
from sb3_lql.algorithms import ALGORITHMS
from sb3_lql.zoo import cli
from tests.saving import mutations
from tests.zoo.conftest import sb3_lql

TINY: dict[str, Any] = dict(policy_kwargs=dict(net_arch=[8]), n_langevin_steps=2, buffer_size=10, device="cpu", seed=0)


def run_here(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in this process, which has imported what it needs."""
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "export", *arguments])
    cli.main()


def test_an_agent_becomes_an_onnx_file_beside_it(lql_agent: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    output = sb3_lql("export", lql_agent.name, "--format", "onnx", "--algo", "lql", folder=lql_agent.parent)
    written = lql_agent.with_suffix(".onnx")
    assert re.search(r"^Written: Pendulum-v1.onnx \(onnx, \d\.\d\d MB, float64\)$", output, re.MULTILINE)
    assert "  input   observations: float32 (batch, 3)\n" in output
    assert "  output  actions: float32 (batch, 1)\n" in output
    assert re.search(
        r"^Difference from predict on 1000 sampled .* at most \S+, beyond 1e-04 at \d+ ", output, re.MULTILINE
    )
    assert re.search(r"^One action takes \d+\.\d\d ms by predict, \d+\.\d\d ms by the file$", output, re.MULTILINE)

    observations = np.random.default_rng(0).uniform(-1.0, 1.0, (9, 3)).astype(np.float32)
    actions = onnxruntime.InferenceSession(written).run(["actions"], {"observations": observations})[0]
    expected, _ = LQL.load(lql_agent, device="cpu").predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=0.0, atol=2e-4)  # half the range of a torque is 2


def test_starts_and_noise_become_inputs(
    nclql_agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy.pt"
    options = ("--format", "torchscript", "--output", str(output), "--noise-input", "--observations", "7")
    run_here(str(nclql_agent), *options, "--repetitions", "0", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "initial_actions: float32 (batch, 1)" in printed
    assert "noise: float32 (10, batch, 1)" in printed
    assert "Difference from sampled actions on 7 " in printed
    assert "One action takes" not in printed
    module = th.jit.load(output)  # type: ignore[no-untyped-call]
    assert module(th.zeros(4, 3), th.zeros(4, 1), th.zeros(10, 4, 1)).shape == (4, 1)


@pytest.mark.parametrize("algo", ["sdac", "dacer", "mvp", "comparedqsm"])
def test_rivals_are_exported_too(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = dict(n_denoising_steps=3, n_action_samples=2)
    kwargs: dict[str, Any] = dict(policy_kwargs=dict(net_arch=[8]), buffer_size=10, device="cpu", seed=0)
    model = ALGORITHMS[algo].cls("MlpPolicy", "Pendulum-v1", **chain, **kwargs)
    model.save(tmp_path / "agent.zip")
    options = ("--algo", algo, "--format", "torchscript", "--observations", "7", "--repetitions", "0")
    run_here(str(tmp_path / "agent.zip"), *options, monkeypatch=monkeypatch)
    observations = np.random.default_rng(0).uniform(-1.0, 1.0, (9, 3)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    actions = th.jit.load(tmp_path / "agent.pt")(th.from_numpy(observations))  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(actions.numpy(), expected, rtol=0.0, atol=2e-4)

    run_here(str(tmp_path / "agent.zip"), *options, "--noise-input", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "initial_actions: float32 (batch, 2, 1)" in printed
    n_noises = dict(mvp=0, comparedqsm=3).get(algo, 2)  # all steps but the last have noise
    assert (f"noise: float32 ({n_noises}, batch, 2, 1)" in printed) == (n_noises > 0)


@pytest.fixture
def normalized_agent(tmp_path: Path) -> tuple[Path, VecNormalize, LQL]:
    """A model with the statistics of its observations, where the RL Zoo saves them."""
    env = VecNormalize(make_vec_env("Pendulum-v1", seed=0), clip_obs=2.0)
    env.reset()
    for _ in range(20):
        env.step(np.ones((1, 1)))
    model = LQL("MlpPolicy", env, normalize_score=False, inverse_temperature=2000.0, **TINY)
    path = tmp_path / "Pendulum-v1.zip"
    model.save(path)
    (tmp_path / "Pendulum-v1").mkdir()
    env.save(str(tmp_path / "Pendulum-v1/vecnormalize.pkl"))
    return path, env, model


def assert_normalizes(path: Path, env: VecNormalize, model: LQL) -> None:
    observations = np.random.default_rng(0).uniform(-1.0, 1.0, (9, 3)).astype(np.float32)
    expected, _ = model.predict(env.normalize_obs(observations), deterministic=True)
    as_they_are, _ = model.predict(observations, deterministic=True)
    assert np.abs(expected - as_they_are).max() > 0.01
    actions = th.jit.load(path)(th.from_numpy(observations))  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(actions.numpy(), expected, rtol=0.0, atol=2e-4)


@pytest.mark.parametrize("named", [True, False])
def test_statistics_are_found_beside_the_model_or_named(
    normalized_agent: tuple[Path, VecNormalize, LQL], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, env, model = normalized_agent
    normalize = ("--normalize", str(path.with_suffix("") / "vecnormalize.pkl")) if named else ("--normalize",)
    run_here(str(path), "--algo", "lql", "--format", "torchscript", *normalize, monkeypatch=monkeypatch)
    assert_normalizes(path.with_suffix(".pt"), env, model)


def test_a_safe_file_brings_its_algorithm_and_statistics(
    normalized_agent: tuple[Path, VecNormalize, LQL], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, env, model = normalized_agent
    (path.with_suffix("") / "vecnormalize.pkl").unlink()
    model.save_safe(path.with_suffix(".safetensors"))
    arguments = (str(path.with_suffix(".safetensors")), "--format", "torchscript", "--normalize")
    run_here(*arguments, monkeypatch=monkeypatch)
    assert_normalizes(path.with_suffix(".pt"), env, model)


def test_beside_a_safe_file_no_pickle_is_opened(
    normalized_agent: tuple[Path, VecNormalize, LQL],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = normalized_agent[0]
    LQL.load(path, device="cpu").save_safe(path.with_suffix(".safetensors"))
    monkeypatch.setattr("pickle.load", lambda _: pytest.fail("a pickle was opened"))
    arguments = (str(path.with_suffix(".safetensors")), "--format", "torchscript", "--normalize")
    with pytest.raises(SystemExit, match="2"):
        run_here(*arguments, monkeypatch=monkeypatch)
    assert "Pendulum-v1.safetensors comes with 0 statistics" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".zip", ".safetensors"])
def test_an_agent_with_hindsight_needs_no_environment(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = BitFlippingEnv(n_bits=3, continuous=True)
    with pytest.warns(UserWarning, match="n_steps=2"):  # which hindsight ignores
        model = NCLQL("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, n_steps=2, **TINY)
    path = tmp_path / f"agent{suffix}"
    (model.save if suffix == ".zip" else model.save_safe)(path)
    run_here(str(path), "--format", "torchscript", "--repetitions", "0", monkeypatch=monkeypatch)
    observation = {key: th.from_numpy(value[None]) for key, value in env.observation_space.sample().items()}
    action = th.jit.load(path.with_suffix(".pt"))(observation)  # type: ignore[no-untyped-call]
    expected, _ = model.predict({key: value.numpy() for key, value in observation.items()}, deterministic=True)
    np.testing.assert_allclose(action.numpy(), expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize(("suffix", "named"), [(".zip", "vecnormalize.pkl"), (".safetensors", "v1.safetensors")])
def test_statistics_that_were_left_out_are_pointed_at(
    normalized_agent: tuple[Path, VecNormalize, LQL],
    suffix: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, _, model = normalized_agent
    model.save_safe(path.with_suffix(".safetensors"))
    run_here(str(path.with_suffix(suffix)), "--algo", "lql", "--format", "torchscript", monkeypatch=monkeypatch)
    assert f"{named} was left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nothing.zip", "--format", "onnx"), "there is no file nothing.zip"),
        (("MODEL", "--format", "tflite"), "invalid choice: 'tflite'"),
        (("MODEL",), "required: --format"),
        (("MODEL", "--format", "torchscript", "--observations", "1"), "--observations: 1 is too small"),
        (("MODEL", "--format", "torchscript", "--repetitions", "-1"), "--repetitions: -1 is too small"),
        (("MODEL", "--format", "torchscript", "--normalize"), "comes with 0 statistics of observations"),
        (("MODEL", "--format", "torchscript", "--normalize", "no.pkl"), "there is no file no.pkl"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    options: tuple[str, ...],
    message: str,
    nclql_agent: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_here(*(str(nclql_agent) if option == "MODEL" else option for option in options), monkeypatch=monkeypatch)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (".", "it is a folder"),
        ("a_file/policy.pt", "Not a directory|File exists"),
        ("/proc/nowhere/policy.pt", "No such file or directory"),
        ("/proc/policy.pt", "No such file or directory"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_exported(
    output: str,
    reason: str,
    nclql_agent: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("")
    monkeypatch.setattr("sb3_lql.zoo.export.export_bytes", lambda *_, **__: pytest.fail("it was exported"))
    with pytest.raises(SystemExit, match="2"):
        run_here(str(nclql_agent), "--format", "torchscript", "--output", output, monkeypatch=monkeypatch)
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"argument --output: {output} cannot be written \(({reason})\), pass another path", last_line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full")
def test_a_full_disk_is_named(
    nclql_agent: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_here(str(nclql_agent), "--format", "torchscript", "--output", "/dev/full", monkeypatch=monkeypatch)
    assert "argument --output: /dev/full cannot be written (No space left on device)" in capsys.readouterr().err


def test_a_folder_that_is_missing_is_made(nclql_agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "new" / "folder" / "policy.pt"
    options = ("--format", "torchscript", "--output", str(output), "--repetitions", "0")
    run_here(str(nclql_agent), *options, monkeypatch=monkeypatch)
    assert output.stat().st_size > 0


@pytest.mark.parametrize("trained_with", ["lql", "sac"])
def test_for_an_agent_of_another_algorithm_the_option_is_named(
    trained_with: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = dict(policy_kwargs=dict(net_arch=[8]), buffer_size=10, device="cpu")
    model: Any = dict(lql=LQL, sac=SAC)[trained_with]("MlpPolicy", "Pendulum-v1", **sizes)
    model.save(tmp_path / "agent.zip")
    with pytest.raises(SystemExit, match="2"):
        run_here(str(tmp_path / "agent.zip"), "--format", "torchscript", monkeypatch=monkeypatch)
    assert re.search(r"argument --algo: \S+agent\.zip cannot be loaded as nclql \(", capsys.readouterr().err)


def test_an_algorithm_that_a_file_makes_up_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.safetensors"
    LQL("MlpPolicy", "Pendulum-v1", **TINY).save_safe(path)
    document, tensors = mutations.unpack(path.read_bytes())
    path.write_bytes(mutations.pack(mutations.replaced(document, ("algorithm",), "PPO"), tensors))
    with pytest.raises(SystemExit, match="2"):
        run_here(str(path), "--format", "torchscript", monkeypatch=monkeypatch)
    assert "is of 'ppo', and may be of " in capsys.readouterr().err


def test_a_missing_package_is_named(nclql_agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_lql.exporting.reader.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'sb3_lql\[export\]'"):
        run_here(str(nclql_agent), "--format", "onnx", monkeypatch=monkeypatch)
