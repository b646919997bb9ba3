"""``sb3-lql export``: a trained agent as a file that runs without this library."""

import argparse
import errno
import pickle
import reprlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.algorithms import ALGORITHMS, DEFAULT
from sb3_lql.common.files import atomic_write
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.exporting.module import PolicyModule, Precision
from sb3_lql.exporting.reader import TOLERANCE, ExportedPolicy, Format, measure_parity, sample_observations
from sb3_lql.exporting.writer import export_bytes
from sb3_lql.saving.safe import algorithm_of

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "torch-export": ".pt2"}
STATISTICS_FILE = "vecnormalize.pkl"
#: What ``--normalize`` means without a path.
OF_MODEL = Path()
#: A model that only acts has no need of a replay buffer, nor of the environments that one with hindsight asks.
ACTING: dict[str, Any] = dict(
    device="cpu",
    buffer_size=1,
    replay_buffer_class=None,
    replay_buffer_kwargs={},
    optimize_memory_usage=False,
    n_steps=1,
)
SAFE_SUFFIX = ".safetensors"
WARM_UP_CALLS = 20


def export() -> None:
    """Write the file, and print what it takes, how near it is to ``predict``, and how fast both are."""
    parser = _make_parser()
    args = parser.parse_args()
    for name, smallest in (("observations", 2), ("repetitions", 0)):
        if getattr(args, name) < smallest:
            parser.error(f"argument --{name}: {getattr(args, name)} is too small: pass at least {smallest}")
    if not args.model.is_file():
        parser.error(f"argument MODEL: there is no file {args.model}")
    args.output = args.output or args.model.with_suffix(SUFFIXES[args.format])
    try:
        _export(args)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        sys.exit(f"sb3-lql export: {error}")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write a trained agent's whole policy, its chain included, to a file that runs without sb3_lql: "
        "observations in, actions in the environment's own scale out."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a saved model: .zip, or .safetensors")
    parser.add_argument("--format", choices=get_args(Format), required=True, help="what to write")
    parser.add_argument(
        "--algo",
        choices=ALGORITHMS,
        help=f"algorithm (default: what a .safetensors says it is of; {DEFAULT} for a .zip)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the file to write, in a folder that may be new (default: beside MODEL)",
    )
    parser.add_argument(
        "--normalize",
        nargs="?",
        type=Path,
        const=OF_MODEL,
        metavar="PATH",
        help=f"normalise observations, by the statistics in a .safetensors, or of a {STATISTICS_FILE} (default: the "
        "one that train saves beside a .zip). It is a pickle: use only files that you trust",
    )
    parser.add_argument("--noise-input", action="store_true", help="chains start from, and are driven by, inputs")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float64",
        help="of the chain; float32 is faster, and its roundings grow along the chain (default: %(default)s)",
    )
    parser.add_argument(
        "--observations", type=int, default=1000, metavar="N", help="to compare predict on (default: %(default)s)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=200, metavar="N", help="timed actions of each, 0 for none (default: 200)"
    )
    return parser


def _export(args: argparse.Namespace) -> None:
    model = _load(args.model, args.algo)
    vec_normalize = None if args.normalize is None else _load_statistics(args.normalize, args.model, model)
    try:
        if args.output.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        # Opened first: where nothing can be written, nobody waits for the export
        with atomic_write(args.output) as file:
            content, module = export_bytes(
                model, args.format, not args.noise_input, vec_normalize or False, args.precision, n_observations=100
            )
            exported = ExportedPolicy(content, args.format)
            parity = measure_parity(exported, module, model, args.observations)
            file.write(content)
    except OSError as error:
        raise ValueError(
            f"argument --output: {args.output} cannot be written ({error.strerror or error}), pass another path"
        ) from error

    print(f"Written: {args.output} ({args.format}, {len(content) / 1e6:.2f} MB, {args.precision})")
    for name, (dtype, shape) in module.inputs().items():
        print(f"  input   {name}: {str(dtype).removeprefix('torch.')} ({', '.join(map(str, shape))})")
    print(
        f"  output  actions: {module.action_space.dtype} ({', '.join(map(str, ('batch', *module.action_space.shape)))})"
    )
    print(
        f"Difference from {'sampled actions' if args.noise_input else 'predict'} on {parity.n_observations} sampled "
        f"observations, where half the range of an action is 1: at most {parity.max_difference:.1e}, beyond "
        f"{TOLERANCE:.0e} at {parity.n_beyond} of them"
    )
    if args.repetitions:
        _print_latency(model, exported, module, args.repetitions)
    if args.normalize is None and (left_out := _statistics_of(args.model, model)):
        print(
            f"Note: the VecNormalize in {left_out[0]} was left out: the file takes normalised observations. "
            "--normalize puts it in."
        )


def _load(path: Path, algo: str | None) -> ChainAlgorithm:
    is_safe = path.suffix == SAFE_SUFFIX
    algo = algo or (algorithm_of(path).lower() if is_safe else DEFAULT)
    if algo not in ALGORITHMS:
        known = ", ".join(sorted(ALGORITHMS))
        raise ValueError(f"argument MODEL: {path} is of {reprlib.repr(algo)}, and may be of {known}")
    model_class = ALGORITHMS[algo].cls
    if is_safe:
        return model_class.load_safe(path, **ACTING)
    try:
        return model_class.load(path, **ACTING)
    except (RuntimeError, TypeError, ValueError) as error:  # the first is PyTorch's, for other networks
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":.")
        raise ValueError(
            f"argument --algo: {path} cannot be loaded as {algo} ({reason}); pass what it was trained with"
        ) from error


def _statistics_of(path: Path, model: ChainAlgorithm) -> list[Path]:
    """The files that hold them: a safe one itself; of another, what ``train`` saves in a folder beside it."""
    if path.suffix == SAFE_SUFFIX:
        own = model.get_vec_normalize_env()
        return [path] if own is not None and own.norm_obs else []
    return sorted(path.absolute().parent.glob(f"*/{STATISTICS_FILE}"))


def _load_statistics(path: Path, model_path: Path, model: ChainAlgorithm) -> VecNormalize:
    if path == OF_MODEL:
        found = _statistics_of(model_path, model)
        if len(found) != 1:
            raise ValueError(
                f"argument --normalize: {model_path} comes with {len(found)} statistics of observations; pass the path "
                f"of a {STATISTICS_FILE}"
            )
        path = found[0]
    if path == model_path and (own := model.get_vec_normalize_env()) is not None:
        return own
    if not path.is_file():
        raise ValueError(f"argument --normalize: there is no file {path}")
    with path.open("rb") as file:
        loaded = pickle.load(file)
    if not isinstance(loaded, VecNormalize):
        raise ValueError(f"argument --normalize: {path} holds a {type(loaded).__name__}, not a VecNormalize")
    return loaded


def _print_latency(model: ChainAlgorithm, exported: ExportedPolicy, module: PolicyModule, repetitions: int) -> None:
    """Of one action, both in turns: what slows the machine down slows both."""
    batch = sample_observations(module, 1)
    draws = [draw.numpy() for draw in module.example(1)[1:]]
    normalize = (lambda x: x) if module.vec_normalize is None else module.vec_normalize.normalize_obs
    calls: dict[str, Callable[[], object]] = {
        "predict": lambda: model.predict(normalize(batch), deterministic=module.deterministic),
        "the file": lambda: exported(batch, *draws),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP_CALLS + repetitions):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * statistics.median(taken[WARM_UP_CALLS:]) for name, taken in times.items()}
    print(f"One action takes {medians['predict']:.2f} ms by predict, {medians['the file']:.2f} ms by the file")
