"""What a training run needs to go on after its process is gone, on disk: all of it or nothing."""

import json
import os
import pickle
import platform
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.benchmark.comparison.records import flush

#: Names within a checkpoint, the first two as the RL Zoo looks for them.
MODEL = "model.zip"
REPLAY_BUFFER = "replay_buffer.pkl"
RANDOM_STATES = "random_states.pkl"
RECORD = "record.json"


def save_checkpoint(model: OffPolicyAlgorithm, env_id: str, record: dict[str, Any], folder: Path) -> None:
    """
    Write model, optimisers, replay buffer, normalisation statistics, counters and random states, then drop what the
    folder held before. A kill at any moment leaves one checkpoint whole.

    :param model: a model between updates and collection, which has gone on since the last checkpoint
    :param env_id: the id under which the RL Zoo looks for normalisation statistics
    :param record: what is known of the run, as JSON
    :param folder: folder for checkpoints and nothing else
    """
    # Two processes that believe the run is theirs do not write the same files
    unfinished = folder / f"unfinished-{platform.node()}-{os.getpid()}"
    unfinished.mkdir(parents=True)
    try:
        model.save(unfinished / MODEL)
        model.save_replay_buffer(unfinished / REPLAY_BUFFER)
        if (normalization := model.get_vec_normalize_env()) is not None:
            (unfinished / env_id).mkdir()
            normalization.save(str(unfinished / env_id / "vecnormalize.pkl"))
        assert model.env is not None
        states = random_states() | {
            "actions": model.action_space.np_random.bit_generator.state,
            "envs": model.env.get_attr("np_random"),
        }
        (unfinished / RANDOM_STATES).write_bytes(pickle.dumps(states))
        (unfinished / RECORD).write_text(json.dumps(record))
        for path in unfinished.rglob("*"):
            flush(path)
        finished = unfinished.rename(folder / str(model.num_timesteps))
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    flush(folder)
    for path in folder.iterdir():
        if path != finished:
            discard(path)


def find_checkpoint(folder: Path) -> Path | None:
    """
    :param folder: folder for checkpoints
    :return: the newest one, ``None`` if there is none
    """
    finished = [path for path in folder.glob("*") if path.name.isdecimal()]
    return max(finished, key=lambda path: int(path.name), default=None)


def discard(path: Path) -> None:
    """
    Delete a checkpoint, or a folder of them. A kill in the middle does not leave a part that looks like the whole.

    :param path: the folder; there may be none
    """
    if path.exists():
        shutil.rmtree(path.rename(path.with_name(f"discarded-{path.name}")))


def restore(model: OffPolicyAlgorithm, checkpoint: Path) -> None:
    """
    Bring back what the RL Zoo does not: the random states, and the end of the episodes that were being played.

    :param model: the model as it was loaded from the checkpoint
    :param checkpoint: a checkpoint
    """
    states = pickle.loads((checkpoint / RANDOM_STATES).read_bytes())
    assert model.env is not None
    # The seed that they were given takes effect at the first reset, which statistics of observations must not notice
    model.env.unwrapped.reset()
    for index, generator in enumerate(states["envs"]):
        model.env.set_attr("np_random", generator, indices=index)
    model.action_space.np_random.bit_generator.state = states["actions"]
    set_random_states(states)
    if isinstance(model.replay_buffer, ReplayBuffer) and model.replay_buffer.size() > 0:
        # The environments begin new episodes: returns of several steps end at the seam
        model.replay_buffer.timeouts[model.replay_buffer.pos - 1] = True


def random_states() -> dict[str, Any]:
    """
    :return: the states of Python's, NumPy's and PyTorch's generators
    """
    cuda = th.cuda.get_rng_state_all() if th.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": th.get_rng_state(), "cuda": cuda}


def set_random_states(states: dict[str, Any]) -> None:
    """
    :param states: what :func:`random_states` has returned
    """
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    # The process that goes on may find fewer devices
    th.cuda.set_rng_state_all(states["cuda"][: th.cuda.device_count()])


@contextmanager
def random_states_kept() -> Iterator[None]:
    """What is drawn within does not change what is drawn afterwards."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)
