"""Which of our extras installs a package that is missing."""

import re

#: Extras, and the names under which what they install is imported.
EXTRAS = {
    "zoo": (
        *("rl_zoo3", "huggingface_hub", "huggingface_sb3", "matplotlib", "moviepy", "mujoco", "optuna", "pandas"),
        *("pygame", "requests", "rich", "rliable", "scipy", "seaborn", "tensorboard", "tqdm", "yaml"),
    ),
    "benchmark": ("filelock", "markdown_it", "ray"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
}


def missing_extra(error: ModuleNotFoundError) -> tuple[str, str] | None:
    """The package that is missing, and the extra that installs it; None if none of ours does."""
    quoted = re.search(r"'([\w.]+)'", str(error))
    package = (error.name or (quoted[1] if quoted else "")).split(".")[0]
    return next(((package, extra) for extra, packages in EXTRAS.items() if package in packages), None)
