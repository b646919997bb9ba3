"""Exported policies: they act as the model does, for batches of any size, or are not written."""

import copy
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_lql import LQL, NCLQL, export
from sb3_lql.baselines import DACER, MVP, QSM, SDAC
from sb3_lql.baselines.compared import ComparedQSM
from sb3_lql.exporting import writer
from sb3_lql.exporting.module import PolicyModule
from sb3_lql.langevin.family import LangevinAlgorithm
from tests.test_deterministic import batch_of, rows
from tests.test_spaces import ACTION_BOXES, AnySpaces, box

#: What the issue asks for; half the range of an action is 1.
TOLERANCE = 1e-4

#: Of each kind of process, denoiser and critic one.
RIVALS = [SDAC, DACER, QSM, MVP, ComparedQSM]

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
OBSERVATIONS: dict[str, tuple[str, spaces.Space[Any]]] = {
    "vector": ("MlpPolicy", VECTOR),
    "float64 matrix": ("MlpPolicy", spaces.Box(-np.inf, np.inf, (2, 3), np.float64)),
    "Discrete": ("MlpPolicy", spaces.Discrete(5)),
    "MultiDiscrete": ("MlpPolicy", spaces.MultiDiscrete([3, 4], start=[-1, 5])),
    "MultiBinary": ("MlpPolicy", spaces.MultiBinary(6)),
    "image": ("CnnPolicy", IMAGE),
    "Dict": ("MultiInputPolicy", spaces.Dict(vec=VECTOR, level=spaces.Discrete(4, start=2), img=IMAGE)),
}


def make_model(
    algorithm: Any, policy: Any = "MlpPolicy", space: spaces.Space[Any] = VECTOR, action_box: Any = None, **kwargs: Any
) -> Any:
    """An untrained model with a short chain that ends inside the box: in a corner, different computations agree."""
    chain: dict[str, Any]
    if not issubclass(algorithm, LangevinAlgorithm):
        chain = dict(n_denoising_steps=3, n_action_samples=1)
    elif algorithm is NCLQL:
        chain = dict(n_langevin_steps=1, n_noise_levels=2, sigma_max=0.01, inverse_temperature=20.0)
    else:
        chain = dict(n_langevin_steps=2, inverse_temperature=2000.0)
    if issubclass(algorithm, LangevinAlgorithm):
        chain["normalize_score"] = False
    env = AnySpaces(ACTION_BOXES["matrix"] if action_box is None else action_box, space)
    small = dict(policy_kwargs=dict(net_arch=[16, 16]), buffer_size=10, device="cpu", seed=0)
    model = algorithm(policy, env, **(small | chain | kwargs))
    if not issubclass(algorithm, LangevinAlgorithm):
        with th.no_grad():  # the other denoiser stays as it is, and would act otherwise
            model.policy.acting_denoiser.network[-1].weight.mul_(0.1)
        model.policy.start_scale *= 0.1
    return model


def leaves(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def as_tensors(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: th.from_numpy(value) for key, value in observations.items()}
    return th.from_numpy(observations)


def run_torchscript(path: Path) -> Callable[..., np.ndarray]:
    module = th.jit.load(path)  # type: ignore[no-untyped-call]
    return lambda obs, *draws: module(as_tensors(obs), *map(as_tensors, draws)).numpy()


def run_torch_export(path: Path) -> Callable[..., np.ndarray]:
    module = th.export.load(path).module()
    return lambda obs, *draws: module(as_tensors(obs), *map(as_tensors, draws)).numpy()


def run_onnx(path: Path) -> Callable[..., np.ndarray]:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)

    def run(obs: Any, *draws: np.ndarray) -> np.ndarray:
        inputs = obs if isinstance(obs, dict) else {"observations": obs}
        draws_by_name = dict(zip(["initial_actions", "noise"], draws, strict=False))
        actions: np.ndarray = session.run(["actions"], inputs | draws_by_name)[0]
        return actions

    return run


RUNNERS = {"onnx": run_onnx, "torchscript": run_torchscript, "torch-export": run_torch_export}


def assert_same_actions(actions: np.ndarray, expected: np.ndarray, action_box: spaces.Box) -> None:
    assert actions.dtype == action_box.dtype
    assert actions.shape == expected.shape
    assert ((action_box.low <= actions) & (actions <= action_box.high)).all()
    half_range = 0.5 * action_box.high.astype(np.float64) - 0.5 * action_box.low.astype(np.float64)
    epsilon = th.finfo(th.from_numpy(actions).dtype).eps
    rounding = epsilon * np.maximum(np.abs(action_box.low), np.abs(action_box.high)) / half_range
    difference = np.abs(actions / half_range - expected / half_range)
    assert (difference <= TOLERANCE + rounding).all()


def assert_acts_as_predict(run: Callable[..., np.ndarray], model: Any, n_observations: int) -> None:
    """Alone, in a batch of seven and in one of all others; the actions must be worth comparing."""
    observations = batch_of(model.observation_space, n_observations)
    expected, _ = model.predict(observations, deterministic=True)
    inside = (model.action_space.low < expected) & (expected < model.action_space.high)
    assert inside.mean() > 0.5
    assert (expected.astype(np.float64).std(axis=0) > 0).all()
    for part in (slice(0, 1), slice(1, 8), slice(8, None)):
        assert_same_actions(run(rows(observations, part)), expected[part], model.action_space)


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_torchscript_acts_as_predict_on_any_observations(algorithm: Any, observations: str, tmp_path: Path) -> None:
    model = make_model(algorithm, *OBSERVATIONS[observations])
    path = export(model, tmp_path / "policy.pt", format="torchscript", n_observations=10)
    assert_acts_as_predict(run_torchscript(path), model, 20)


@pytest.mark.parametrize("action_box", ACTION_BOXES)
def test_actions_are_in_the_scale_and_dtype_of_any_box(action_box: str, tmp_path: Path) -> None:
    model = make_model(NCLQL, action_box=ACTION_BOXES[action_box])
    path = export(model, tmp_path / "policy.pt", format="torchscript", n_observations=10)
    assert_acts_as_predict(run_torchscript(path), model, 20)


@pytest.fixture(scope="module", params=[LQL, NCLQL], ids=["LQL", "NCLQL"])
def onnx_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model, and the only file in a folder: what was exported."""
    pytest.importorskip("onnxscript")
    model = make_model(request.param)
    return model, export(model, tmp_path_factory.mktemp("onnx") / "policy.onnx")


def test_onnx_acts_as_predict_on_a_thousand_observations(onnx_model: tuple[Any, Path]) -> None:
    model, path = onnx_model
    assert_acts_as_predict(run_onnx(path), model, 1000)


def test_an_onnx_file_is_one_file_that_tells_what_it_is(onnx_model: tuple[Any, Path]) -> None:
    model, path = onnx_model
    assert list(path.parent.iterdir()) == [path]
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    assert [(item.name, item.shape, item.type) for item in (*session.get_inputs(), *session.get_outputs())] == [
        ("observations", ["batch", 3], "tensor(float)"),
        ("actions", ["batch", 2, 2], "tensor(float)"),
    ]
    about = session.get_modelmeta().custom_metadata_map
    assert about["algorithm"] == type(model).__name__
    assert about["action_low"] == str(model.action_space.low.tolist())
    assert about["action_high"] == str(model.action_space.high.tolist())


def test_an_onnx_file_needs_no_pytorch(onnx_model: tuple[Any, Path]) -> None:
    model, path = onnx_model
    program = (
        "import sys; sys.modules['torch'] = sys.modules['sb3_lql'] = None\n"
        "import numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        "print(session.run(None, {'observations': numpy.full((1, 3), 0.5, numpy.float32)})[0].ravel().tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    expected, _ = model.predict(np.full((1, 3), 0.5, np.float32), deterministic=True)
    actions = np.array(eval(printed), np.float32).reshape(expected.shape)
    assert_same_actions(actions, expected, model.action_space)


def test_an_onnx_file_takes_dict_observations_by_their_keys(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = make_model(NCLQL, *OBSERVATIONS["Dict"], n_action_samples=3)
    path = export(model, tmp_path / "policy.onnx", n_observations=10)
    assert_acts_as_predict(run_onnx(path), model, 20)


def test_torch_export_acts_as_predict(algorithm: Any, tmp_path: Path) -> None:
    model = make_model(algorithm, n_action_samples=3)
    path = export(model, tmp_path / "policy.pt2", format="torch-export", n_observations=10)
    assert_acts_as_predict(run_torch_export(path), model, 20)


def draw(model: Any, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    n, dim = model.n_action_samples, model.policy.action_dim
    shape = (batch_size, dim) if n == 1 else (batch_size, n, dim)
    starts = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    return starts, rng.standard_normal((model.policy.sampler.chain_length, *shape)).astype(np.float32)


@pytest.mark.parametrize("format", RUNNERS)
def test_with_starts_and_noise_as_inputs_it_samples_as_the_policy_does(format: Any, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript")
    model = make_model(LQL)
    path = export(model, tmp_path / "policy", format=format, deterministic=False, n_observations=10)
    observations = batch_of(model.observation_space, 7)
    starts, noise = draw(model, 7)
    sampled = model.policy.sample_actions(
        th.from_numpy(observations), initial_actions=th.from_numpy(starts), noise=th.from_numpy(noise)
    )
    expected = model.policy.unscale_action(sampled.numpy().reshape(-1, 2, 2))
    assert np.ptp(expected, axis=0).min() > 0.1  # the noise is felt
    run = RUNNERS[format](path)
    assert_same_actions(run(observations, starts, noise), expected, model.action_space)
    assert_same_actions(run(observations[:1], starts[:1], noise[:, :1]), expected[:1], model.action_space)


@pytest.mark.parametrize("deterministic", [True, False])
def test_of_several_chains_the_best_by_the_minimum_critic_acts(
    algorithm: Any, deterministic: bool, tmp_path: Path
) -> None:
    model = make_model(algorithm, n_action_samples=3)
    observations = batch_of(model.observation_space, 9)
    path = export(model, tmp_path / "policy.pt", format="torchscript", deterministic=deterministic)
    run = run_torchscript(path)
    if deterministic:
        assert_acts_as_predict(run, model, 20)
        return
    starts, noise = draw(model, 9)
    chains = [
        model.policy.sample_actions(
            th.from_numpy(observations),
            initial_actions=th.from_numpy(starts[:, chain]),
            noise=th.from_numpy(noise[:, :, chain]),
        )
        for chain in range(3)
    ]
    q_values = th.stack([model.critic(th.from_numpy(observations), actions).amin(dim=0)[:, 0] for actions in chains])
    best = th.stack(chains)[q_values.argmax(dim=0), th.arange(9)].numpy()
    expected = model.policy.unscale_action(best.reshape(-1, 2, 2))
    assert len(set(q_values.argmax(dim=0).tolist())) > 1
    assert_same_actions(run(observations, starts, noise), expected, model.action_space)


@pytest.mark.parametrize("n_action_samples", [1, 3])
@pytest.mark.parametrize("rival", RIVALS)
def test_a_rivals_file_acts_as_predict(rival: Any, n_action_samples: int, tmp_path: Path) -> None:
    model = make_model(rival, n_action_samples=n_action_samples)
    path = export(model, tmp_path / "policy.pt", format="torchscript", n_observations=10)
    assert_acts_as_predict(run_torchscript(path), model, 20)


@pytest.mark.parametrize(("rival", "precision"), [(SDAC, "float64"), (MVP, "float32")])  # MVP's GELU is not in float64
def test_a_rivals_onnx_file_acts_as_predict(rival: Any, precision: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = make_model(rival, n_action_samples=3)
    path = export(model, tmp_path / "policy.onnx", precision=precision, n_observations=10)
    assert_acts_as_predict(run_onnx(path), model, 20)


@pytest.mark.parametrize("n_action_samples", [1, 3])
@pytest.mark.parametrize("rival", RIVALS)
def test_of_given_draws_a_rivals_file_makes_what_its_policy_makes(
    rival: Any, n_action_samples: int, tmp_path: Path
) -> None:
    model = make_model(rival, n_action_samples=n_action_samples)
    path = export(model, tmp_path / "policy.pt", format="torchscript", deterministic=False, n_observations=10)
    observations = batch_of(model.observation_space, 7)
    with th.no_grad():
        features = model.policy.features(th.from_numpy(observations)).repeat_interleave(n_action_samples, dim=0)
        draws = model.policy.draw(features)
        actions = model.policy.act(features, *draws)
    expected = model.policy.unscale_action(actions.numpy().reshape(-1, 2, 2))
    assert np.ptp(expected, axis=0).min() > 0.1  # the noise is felt
    shape = (7, 4) if n_action_samples == 1 else (7, n_action_samples, 4)
    given = [draw.reshape(*draw.shape[:-2], *shape).numpy() for draw in draws]
    assert_same_actions(run_torchscript(path)(observations, *given), expected, model.action_space)


def normalized(space: spaces.Space[Any], **kwargs: Any) -> VecNormalize:
    env = VecNormalize(DummyVecEnv([lambda: AnySpaces(box([-1.0], [1.0]), space)]), clip_obs=1.5, **kwargs)
    env.reset()
    for _ in range(20):
        env.step(np.zeros((1, 1), np.float32))
    return env


@pytest.mark.parametrize("given", [True, False])
def test_observations_are_normalised_in_the_file(given: bool, tmp_path: Path) -> None:
    env = normalized(spaces.Box(2.0, 10.0, (3,), np.float32))
    model = make_model(NCLQL, space=env.observation_space, action_box=env.action_space)
    if not given:
        model.set_env(env)
    path = export(model, tmp_path / "policy.pt", format="torchscript", vec_normalize=env if given else True)
    observations = batch_of(env.observation_space, 30)
    expected, _ = model.predict(env.normalize_obs(observations), deterministic=True)
    as_they_are, _ = model.predict(observations, deterministic=True)
    assert np.abs(expected - as_they_are).max() > 0.01
    assert_same_actions(run_torchscript(path)(observations), expected, model.action_space)


def test_a_safe_file_brings_its_statistics(tmp_path: Path) -> None:
    env = normalized(spaces.Box(2.0, 10.0, (3,), np.float32))
    model = make_model(NCLQL, space=env.observation_space, action_box=env.action_space)
    model.set_env(env)
    model.save_safe(tmp_path / "model")
    loaded = NCLQL.load_safe(tmp_path / "model", device="cpu")
    path = export(loaded, tmp_path / "policy.pt", format="torchscript", vec_normalize=True)
    observations = batch_of(env.observation_space, 30)
    expected, _ = model.predict(env.normalize_obs(observations), deterministic=True)
    assert_same_actions(run_torchscript(path)(observations), expected, model.action_space)


def test_of_dict_observations_the_keys_that_were_normalised_are(tmp_path: Path) -> None:
    space = spaces.Dict(a=spaces.Box(2.0, 10.0, (3,)), b=VECTOR)
    env = normalized(space, norm_obs_keys=["a"])
    model = make_model(NCLQL, "MultiInputPolicy", space, env.action_space)
    path = export(model, tmp_path / "policy.pt", format="torchscript", vec_normalize=env)
    observations = batch_of(space, 30)
    expected, _ = model.predict(env.normalize_obs(observations), deterministic=True)
    assert_same_actions(run_torchscript(path)(observations), expected, model.action_space)


def test_without_a_closed_form_what_autograd_computes_is_exported(tmp_path: Path) -> None:
    model = make_model(NCLQL, policy_kwargs=dict(net_arch=[16, 16], activation_fn=nn.GELU))
    assert not model.critic.has_closed_form_gradient
    path = export(model, tmp_path / "policy.pt2", format="torch-export", n_observations=10)
    assert_acts_as_predict(run_torch_export(path), model, 20)
    with pytest.raises(ValueError, match=r"format='torchscript' .* no closed form"):
        export(model, tmp_path / "policy.pt", format="torchscript")
    assert not (tmp_path / "policy.pt").exists()


def test_a_critic_without_hidden_layers_is_exported(algorithm: Any, tmp_path: Path) -> None:
    model = make_model(algorithm, policy_kwargs=dict(net_arch=[]))
    path = export(model, tmp_path / "policy.pt", format="torchscript")
    observations = batch_of(model.observation_space, 7)
    expected, _ = model.predict(observations, deterministic=True)
    assert_same_actions(run_torchscript(path)(observations), expected, model.action_space)


def test_a_chain_that_magnifies_roundings_acts_as_predict(tmp_path: Path) -> None:
    """A rough landscape and normalised scores: what float32 rounds grows beyond what a file may differ by."""
    env = AnySpaces(ACTION_BOXES["matrix"], VECTOR)
    model = NCLQL("MlpPolicy", env, policy_kwargs=dict(net_arch=[32, 32]), buffer_size=1, device="cpu", seed=0)
    with th.no_grad():
        for parameter in model.critic.layers.parameters():
            parameter.mul_(10.0)  # biases are zero
    path = export(model, tmp_path / "policy.pt", format="torchscript")
    observations = batch_of(VECTOR, 100)
    expected, _ = model.predict(observations, deterministic=True)
    assert_same_actions(run_torchscript(path)(observations), expected, model.action_space)
    no_noise = th.zeros(model.policy.sampler.chain_length, 100, 4)
    in_float32 = model.policy.sample_actions(
        th.from_numpy(observations), initial_actions=th.zeros(100, 4), noise=no_noise
    ).reshape(100, 2, 2)
    assert np.abs(model.policy.scale_action(expected) - in_float32.numpy()).max() > 10 * TOLERANCE


def test_in_float32_too_it_acts_as_predict(tmp_path: Path) -> None:
    model = make_model(LQL)
    sizes = {}
    for precision in ("float64", "float32"):
        path = export(model, tmp_path / precision, format="torchscript", precision=precision)
        sizes[precision] = path.stat().st_size
        assert_acts_as_predict(run_torchscript(path), model, 20)
    assert sizes["float32"] < sizes["float64"]


def test_the_model_stays_as_it_is(algorithm: Any, tmp_path: Path) -> None:
    model = make_model(algorithm)
    model.policy.set_training_mode(True)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    random_state = th.get_rng_state()
    export(model, tmp_path / "policy.pt", format="torchscript")
    assert th.equal(th.get_rng_state(), random_state)
    assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.critic.parameters())
    model.learn(5)


@pytest.mark.parametrize("observations", ["Discrete", "image", "Dict"])
def test_the_models_spaces_sample_on_as_if_there_had_been_no_export(observations: str, tmp_path: Path) -> None:
    policy, space = OBSERVATIONS[observations]
    models = [make_model(LQL, policy, copy.deepcopy(space)) for _ in range(2)]
    for model in models:
        model.observation_space.seed(7)
    export(models[0], tmp_path / "policy.pt", format="torchscript", n_observations=2)
    first, second = (model.observation_space.sample() for model in models)
    for one, other in zip(*map(leaves, (first, second)), strict=True):
        np.testing.assert_array_equal(one, other)


class Branching(BaseFeaturesExtractor):
    """What it does depends on the observations, which tracing does not see."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=3)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations if observations[0, 0] > 0 else -observations


class Foreign(Branching):
    """Computes outside of PyTorch."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.from_numpy(np.sin(observations.numpy()))


@pytest.mark.parametrize("format", ["torchscript", "torch-export"])
@pytest.mark.parametrize("extractor", [Branching, Foreign])
def test_what_cannot_be_exported_leaves_no_file(format: Any, extractor: Any, tmp_path: Path) -> None:
    model = make_model(LQL, policy_kwargs=dict(net_arch=[8], features_extractor_class=extractor))
    with pytest.raises(ValueError, match=r"exported policy is|does not support"):
        export(model, tmp_path / "policy", format=format)
    assert not list(tmp_path.iterdir())


def test_a_file_that_acts_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = make_model(LQL), make_model(LQL, seed=1)
    convert = writer._CONVERTERS["torchscript"]
    monkeypatch.setitem(writer._CONVERTERS, "torchscript", lambda _, name: convert(PolicyModule(other.policy), name))
    (tmp_path / "policy.pt").write_text("what was there")
    with pytest.raises(ValueError, match="exported policy is not the model's"):
        export(model, tmp_path / "policy.pt", format="torchscript")
    assert (tmp_path / "policy.pt").read_text() == "what was there"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(format="tflite"), ValueError, "format='tflite'.*'onnx', 'torchscript', 'torch-export'"),
        (dict(precision="float16"), ValueError, "precision='float16'.*'float64', 'float32'"),
        (dict(deterministic="yes"), TypeError, "deterministic='yes'"),
        (dict(n_observations=1), ValueError, "n_observations=1"),
        (dict(vec_normalize=True), ValueError, "vec_normalize=True.*set_env"),
        (dict(vec_normalize="statistics.pkl"), TypeError, "vec_normalize='statistics.pkl'"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, error: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        export(make_model(LQL), tmp_path / "policy", **(dict(format="torchscript") | arguments))
    assert not list(tmp_path.iterdir())


def test_models_of_other_libraries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="is no model of sb3_lql"):
        export(SAC("MlpPolicy", "Pendulum-v1", buffer_size=1), tmp_path / "policy")  # type: ignore[arg-type]


def test_statistics_of_other_observations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shapes.*\(4,\)"):
        export(make_model(LQL), tmp_path / "policy", vec_normalize=normalized(spaces.Box(-1.0, 1.0, (4,))))


def test_a_chain_in_bfloat16_is_exported_only_without_noise(tmp_path: Path) -> None:
    model = make_model(LQL, bfloat16_chain=True)
    with pytest.raises(ValueError, match="bfloat16_chain=False"):
        export(model, tmp_path / "policy", format="torchscript", deterministic=False)
    path = export(model, tmp_path / "policy", format="torchscript")
    assert_acts_as_predict(run_torchscript(path), model, 20)


def test_keys_of_observations_may_not_be_names_of_other_inputs(tmp_path: Path) -> None:
    model = make_model(LQL, "MultiInputPolicy", spaces.Dict(noise=VECTOR))
    export(model, tmp_path / "policy", format="torchscript")
    with pytest.raises(ValueError, match="'noise'"):
        export(model, tmp_path / "policy", format="torchscript", deterministic=False)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_its_packages_onnx_names_the_one_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sb3_lql.exporting.reader.find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ModuleNotFoundError, match=rf"{package}.*pip install 'sb3_lql\[export\]'"):
        export(make_model(LQL), tmp_path / "policy.onnx")
