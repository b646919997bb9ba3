"""Export of a policy, including its chain, to files that run without this library."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.common.files import atomic_write
from sb3_lql.common.validation import check_count, check_flag
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.exporting.module import PolicyModule, Precision
from sb3_lql.exporting.reader import ExportedPolicy, Format, check_parity, measure_parity, require
from sb3_lql.version import __version__

#: ONNX operator set, supported by onnxruntime since 2022.
OPSET = 18


def export(
    model: ChainAlgorithm,
    path: str | Path,
    *,
    format: Format = "onnx",
    deterministic: bool = True,
    vec_normalize: VecNormalize | bool = False,
    precision: Precision = "float64",
    n_observations: int = 100,
) -> Path:
    """
    Write the whole policy to one file that maps observations to actions in the environment's scale.

    The file computes the same as ``predict(observations, deterministic=True)``, for batches of any size. Observations
    and actions have the environment's dtypes and a batch dimension; images are channels-first. An ONNX file calls its
    inputs "observations" (or by keys, for Dict observations), "initial_actions" and "noise", its output "actions".

    The default precision is float64, as in ``predict``: a chain can amplify the rounding of float32, which depends on
    the library, the processor and the batch size, into a different action. Before the file takes its name, it is read
    back and compared with ``predict`` on sampled observations. No action may differ by more than 1e-4 of half its
    range; where the chain or a learned features extractor computes in float32, one in twenty may.

    ONNX takes minutes, as the chain is unrolled. A Langevin chain is not available as "torchscript" without a closed
    form of the critic's gradient, and onnxruntime may lack an operator in float64, such as GELU's.

    :param model: a model, on any device
    :param path: the file to write
    :param format: "onnx", for onnxruntime and others; "torchscript", for ``torch.jit.load`` in Python and C++; or
        "torch-export", for ``torch.export.load`` and PyTorch's compilers
    :param deterministic: noise-free chains from fixed starts; ``False`` makes ``initial_actions`` and ``noise`` inputs
    :param vec_normalize: include this normalisation of observations in the file; ``True`` for the current statistics of
        the model's environment, or those of the safe file that it was loaded from
    :param precision: "float64", or "float32", which is faster and half the size but rounds differently
    :param n_observations: number of observations to compare
    :return: the file's path
    :raises ValueError: for a policy or values that cannot be exported, or if the file's actions differ from the model's
    :raises TypeError: for values of the wrong type
    :raises ModuleNotFoundError: if packages for ONNX are missing
    """
    path = Path(path)
    content, _ = export_bytes(model, format, deterministic, vec_normalize, precision, n_observations)
    with atomic_write(path) as file:
        file.write(content)
    return path


def export_bytes(
    model: ChainAlgorithm,
    format: Format,
    deterministic: bool,
    vec_normalize: VecNormalize | bool,
    precision: Precision,
    n_observations: int,
) -> tuple[bytes, PolicyModule]:
    """:func:`export` without a file: its checked content, and the module that was exported."""
    if not isinstance(model, ChainAlgorithm):
        raise TypeError(f"model={model!r} is no model of sb3_lql: only those can be exported.")
    for name, value, allowed in (("format", format, get_args(Format)), ("precision", precision, get_args(Precision))):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is unknown: pass one of {', '.join(map(repr, allowed))}.")
    check_flag("deterministic", deterministic)
    check_count("n_observations", n_observations, low=2)
    if format == "onnx":
        require("onnx", "onnxscript", "onnxruntime")
    module = PolicyModule(model.policy, deterministic, statistics_of(model, vec_normalize), precision)
    try:
        with th.no_grad(), _quiet():
            content = _CONVERTERS[format](module, type(model).__name__)
        parity = measure_parity(ExportedPolicy(content, format), module, model, n_observations)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"format={format!r} with precision={precision!r} does not support this policy ({reason}): try another "
            "format, the other precision, or networks of plain tensor operations."
        ) from error
    check_parity(parity, module)
    return content, module


def statistics_of(model: ChainAlgorithm, vec_normalize: VecNormalize | bool) -> VecNormalize | None:
    """The normalisation to apply, if any; ``ValueError`` if ``vec_normalize`` is ``True`` and the model has none."""
    if isinstance(vec_normalize, VecNormalize):
        return vec_normalize
    check_flag("vec_normalize", vec_normalize)
    if not vec_normalize:
        return None
    own = model.get_vec_normalize_env()
    if own is None:
        raise ValueError(
            "vec_normalize=True, but the model has no VecNormalize: call model.set_env with environments wrapped in "
            "one, pass the VecNormalize itself, or leave it out if the model was trained without."
        )
    return own


def _dynamic_shapes(module: PolicyModule) -> tuple[Any, ...]:
    batch = th.export.Dim("batch", min=1)
    observations: Any = {0: batch}
    if isinstance(module.observation_space, spaces.Dict):
        observations = {key: {0: batch} for key in module.observation_space.spaces}
    draws = tuple({shape.index("batch"): batch} for shape in module.draw_shapes.values())
    return (observations, draws) if draws else (observations,)


def _exported_program(module: PolicyModule) -> th.export.ExportedProgram:
    example = module.example(2)  # sizes of 0 and 1 become constants
    program = th.export.export(module, example, dynamic_shapes=_dynamic_shapes(module))
    for node in program.graph.nodes:  # do not leak file paths
        node.meta.pop("stack_trace", None)
    return program


def _to_torch_export(module: PolicyModule, algorithm: str) -> bytes:
    buffer = io.BytesIO()
    th.export.save(_exported_program(module), buffer, extra_files=_about(module, algorithm))
    return buffer.getvalue()


def _to_torchscript(module: PolicyModule, algorithm: str) -> bytes:
    if not module.chain.traceable:
        raise ValueError("the critic's action-gradient has no closed form, so its operations cannot be traced")
    # Where tracing makes the batch size a constant, a single row still broadcasts
    traced = th.jit.freeze(th.jit.trace(module, module.example(1), check_trace=False))  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    th.jit.save(traced, buffer, _extra_files=_about(module, algorithm))
    return buffer.getvalue()


def _to_onnx(module: PolicyModule, algorithm: str) -> bytes:
    names = list(module.inputs())
    if "actions" in names:
        raise ValueError("the observations' key 'actions' is the name of the output: rename it")
    program = th.onnx.export(
        _exported_program(module),
        (),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=_dynamic_shapes(module),
        input_names=names,
        output_names=["actions"],
        # onnxscript would simplify a + 1e-8 to a, and remove the guard of normalised scores; runtimes optimise anyway
        optimize=False,
        verbose=False,
    )
    assert program is not None
    program.model.producer_name, program.model.producer_version = "sb3_lql", __version__
    program.model.metadata_props.update(_about(module, algorithm))
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]  # the origin of each operation, which is most of a small file
    content: bytes = proto.SerializeToString()
    return content


def _about(module: PolicyModule, algorithm: str) -> dict[str, str]:
    """Metadata of a file."""
    return dict(
        description="Observations to actions",
        algorithm=algorithm,
        sb3_lql=__version__,
        deterministic=str(module.deterministic),
        precision=module.precision,
        action_low=str(module.action_space.low.tolist()),
        action_high=str(module.action_space.high.tolist()),
    )


_CONVERTERS: dict[Format, Callable[[PolicyModule, str], bytes]] = {
    "onnx": _to_onnx,
    "torchscript": _to_torchscript,
    "torch-export": _to_torch_export,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' messages about tracing, themselves and optional packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
