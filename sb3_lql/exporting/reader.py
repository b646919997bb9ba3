"""Running exported policies, and comparing them with the model's ``predict``."""

import copy
import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_lql.common.scaling import center_and_half_range
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.engine.policy import ChainPolicy
from sb3_lql.exporting.module import OBSERVATIONS, PolicyModule
from sb3_lql.saving.random_states import random_states_kept

Format = Literal["onnx", "torchscript", "torch-export"]

#: Largest difference allowed from the actions of ``predict``, relative to half their range.
TOLERANCE = 1e-4
#: Share of observations allowed beyond it where the chain or a learned features extractor computes in float32, whose
#: rounding errors a chain can amplify by 1e5.
ROUNDING_SHARE = 0.05

#: An observation or a batch, as NumPy arrays.
Observations = np.ndarray | dict[str, np.ndarray]


class ExportedPolicy:
    """
    A policy from an exported file.

    :param content: content of the file
    :param format: its format
    :raises ModuleNotFoundError: if the format is "onnx" and onnxruntime is not installed
    """

    def __init__(self, content: bytes, format: Format) -> None:
        load = {"onnx": _load_onnx, "torchscript": _load_torchscript, "torch-export": _load_torch_export}[format]
        self._run = load(content)

    def __call__(self, observations: Observations, *draws: np.ndarray) -> np.ndarray:
        """
        :param observations: a batch
        :param draws: the policy's draws, if it was exported with ``deterministic=False``
        :return: actions, shape ``(batch, *action_shape)``
        """
        return self._run(observations, *draws)


class Parity(NamedTuple):
    """Differences between the actions of a file and of its model, relative to half their range."""

    #: Number of observations compared.
    n_observations: int
    #: Largest difference.
    max_difference: float
    #: Number of observations with a difference beyond :data:`TOLERANCE`.
    n_beyond: int


def measure_parity(
    exported: ExportedPolicy, module: PolicyModule, model: ChainAlgorithm, n_observations: int
) -> Parity:
    """Compare a file with its model on at least 2 sampled observations: one alone, the others as a batch."""
    observations = sample_observations(module, n_observations)
    draws = _sample_draws(module, model.policy, n_observations)
    batches = [_rows(module, part, observations, draws) for part in (slice(0, 1), slice(1, None))]
    actions = np.concatenate([exported(*batch) for batch in batches])
    differences = _differences(actions, _model_actions(model, module, observations, draws), model.action_space)
    return Parity(n_observations, float(differences.max()), int((~(differences <= TOLERANCE)).sum()))


def check_parity(parity: Parity, module: PolicyModule) -> None:
    """Raise ``ValueError`` if the differences are too large for the module's precision and that of ``predict``."""
    exact = module.precision == "float64" == module.predict_precision
    if parity.n_beyond > (0 if exact else ROUNDING_SHARE * parity.n_observations):
        raise ValueError(
            f"The exported policy is not the model's: at {parity.n_beyond} of {parity.n_observations} observations its "
            f"actions differ from those of predict by more than {TOLERANCE:.0e}, up to {parity.max_difference:.1e}, "
            "relative to half their range. Networks must consist of tensor operations, without randomness or branches "
            "that depend on observations."
        )


def sample_observations(module: PolicyModule, n_observations: int, seed: int = 0) -> Observations:
    """
    Sample a batch of observations from their space, near zero where it is wide; where they are normalised, from the
    distribution of the statistics.
    """
    space = module.observation_space
    if isinstance(space, spaces.Dict):
        return {
            key: _sample(part, module, key, n_observations, seed + index)
            for index, (key, part) in enumerate(space.spaces.items())
        }
    return _sample(space, module, OBSERVATIONS, n_observations, seed)


def _sample(space: spaces.Space[Any], module: PolicyModule, name: str, n: int, seed: int) -> np.ndarray:
    if name in module.normalizers:
        normalizer: Any = module.normalizers[name]
        normal = np.random.default_rng(seed).standard_normal((n, *(space.shape or ())))
        samples = normalizer.mean.numpy() + normalizer.std.numpy() * normal
        assert isinstance(space, spaces.Box)
        clipped: np.ndarray = np.clip(samples, space.low, space.high).astype(space.dtype)
        return clipped
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        nearest = np.clip(0.0, space.low, space.high)
        low = np.where(np.isfinite(space.low), np.maximum(space.low, nearest - 10), -np.inf)
        high = np.where(np.isfinite(space.high), np.minimum(space.high, nearest + 10), np.inf)
        space = spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)
    space = copy.deepcopy(space)  # the model draws random actions and goals from its own
    space.seed(seed)
    return np.stack([space.sample() for _ in range(n)])


def _sample_draws(module: PolicyModule, policy: ChainPolicy, n: int) -> list[np.ndarray]:
    """The policy's draws for ``n`` observations, in the shapes that the module takes."""
    if module.deterministic:
        return []
    rows = n * module.n_action_samples
    with random_states_kept():
        th.manual_seed(0)
        draws = policy.draw(th.zeros(rows, 1))
    shapes = [[n if size == "batch" else int(size) for size in shape] for _, shape in module.inputs_drawn().values()]
    return [draw.reshape(shape).cpu().numpy() for draw, shape in zip(draws, shapes, strict=True)]


def _model_actions(
    model: ChainAlgorithm, module: PolicyModule, observations: Observations, draws: list[np.ndarray]
) -> np.ndarray:
    """The actions of the model's own policy; with draws, in the precision of deterministic chains."""
    if module.vec_normalize is not None:
        observations = module.vec_normalize.normalize_obs(observations)
    if not draws:
        return model.predict(observations, deterministic=True)[0]
    policy = model.policy
    policy.set_training_mode(False)
    with th.no_grad():
        features = policy.features(policy.obs_to_tensor(observations)[0]).to(policy.exact_dtype)
        features = features.repeat_interleave(policy.n_action_samples, dim=0)
        actions = policy.act(features, *(draw.to(features) for draw in module.chain_draws(map(th.from_numpy, draws))))
    return policy.unscale_action(actions.float().cpu().numpy().reshape(-1, *model.action_space.shape))


def _differences(actions: np.ndarray, others: np.ndarray, box: spaces.Box) -> np.ndarray:
    """For each action the largest difference of a coordinate, minus the rounding of the box's dtype."""
    _, half_range = center_and_half_range(box)
    rounding = np.spacing(np.maximum(np.abs(box.low), np.abs(box.high))).astype(np.float64)
    difference = np.abs(0.5 * actions.astype(np.float64) - 0.5 * others.astype(np.float64)) * 2.0
    result: np.ndarray = (np.maximum(difference - rounding, 0.0) / half_range).reshape(len(actions), -1).max(axis=1)
    return result


def _rows(module: PolicyModule, part: slice, observations: Observations, draws: list[np.ndarray]) -> list[Any]:
    of_part = {k: v[part] for k, v in observations.items()} if isinstance(observations, dict) else observations[part]
    axes = [shape.index("batch") for shape in module.draw_shapes.values()]
    return [of_part, *(draw[(slice(None),) * axis + (part,)] for draw, axis in zip(draws, axes, strict=True))]


def _as_tensors(argument: Observations) -> th.Tensor | dict[str, th.Tensor]:
    if isinstance(argument, dict):
        return {key: th.from_numpy(value) for key, value in argument.items()}
    return th.from_numpy(argument)


def require(*packages: str) -> None:
    """Raise ``ModuleNotFoundError`` if a package that ONNX needs is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"format='onnx' needs {package}: pip install 'sb3_lql[export]', or choose another format.", name=package
            )


def _load_onnx(content: bytes) -> Callable[..., np.ndarray]:
    require("onnxruntime")
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Spinning threads would slow down other work in this process
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]

    def run(observations: Observations, *draws: np.ndarray) -> np.ndarray:
        parts = observations if isinstance(observations, dict) else {OBSERVATIONS: observations}
        given = parts | dict(zip((name for name in names if name not in parts), draws, strict=True))
        actions: np.ndarray = session.run(["actions"], {name: given[name] for name in names})[0]
        return actions

    return run


def _load_torchscript(content: bytes) -> Callable[..., np.ndarray]:
    return _from_torch(th.jit.load(io.BytesIO(content)))  # type: ignore[no-untyped-call]


def _load_torch_export(content: bytes) -> Callable[..., np.ndarray]:
    return _from_torch(th.export.load(io.BytesIO(content)).module())


def _from_torch(module: Callable[..., th.Tensor]) -> Callable[..., np.ndarray]:
    def run(*arguments: Observations) -> np.ndarray:
        with th.no_grad():
            return module(*(_as_tensors(argument) for argument in arguments)).numpy()

    return run
