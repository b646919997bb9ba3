"""The states of a training's random number generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.collecting.workers import are_idle

#: Seconds to wait for environments that were interrupted during a step.
PATIENCE = 2.0


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and PyTorch's generators, from which minibatches and chains are drawn."""
    # Before it is initialised, nothing was drawn on a GPU
    cuda = th.cuda.get_rng_state_all() if th.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": th.get_rng_state(), "cuda": cuda}


def set_random_states(states: dict[str, Any]) -> None:
    """Set what :func:`random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    # There may be fewer devices than before
    th.cuda.set_rng_state_all(states["cuda"][: th.cuda.device_count()])


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states after the block."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


def training_states(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """:func:`random_states`, and the states of the model's action space and, where available, its environments."""
    assert model.env is not None
    try:
        envs = model.env.get_attr("np_random") if are_idle(model.env, PATIENCE) else None
    except Exception:  # environments that are dead, closed or lack it: their draws will differ
        envs = None
    return random_states() | {"actions": model.action_space.np_random.bit_generator.state, "envs": envs}


def set_training_states(model: OffPolicyAlgorithm, states: dict[str, Any]) -> None:
    """Set what :func:`training_states` returned. The environments are reset if their states are among these."""
    assert model.env is not None
    if states["envs"] is not None:
        # A pending seed takes effect at the first reset, which must bypass the statistics of observations
        model.env.unwrapped.reset()
        for index, generator in enumerate(states["envs"]):
            model.env.set_attr("np_random", generator, indices=index)
    model.action_space.np_random.bit_generator.state = states["actions"]
    set_random_states(states)
