"""What figures depend on besides the code: this machine, and the versions on it."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch as th

import sb3_lql

PACKAGES = ("sb3_lql", "stable_baselines3", "torch")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed, and the commit of a checkout."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if (revision := commit()) is not None:
        found["commit"] = revision
    return found


def commit() -> str | None:
    """The checkout's commit, marked where files have changed since; None if the package lies in no checkout."""
    checkout = Path(sb3_lql.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def hardware(device: str) -> dict[str, Any]:
    """The processor, its cores, PyTorch's threads, the memory in GB and the device's name."""
    return {
        "host": platform.node(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "threads": th.get_num_threads(),
        "device": device_name(device),
    }


def device_name(device: str) -> str:
    """A GPU's model; other devices go by PyTorch's name."""
    return th.cuda.get_device_name(device) if device.startswith("cuda") else device


def processor() -> str:
    """The processor's model, which Python itself does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
