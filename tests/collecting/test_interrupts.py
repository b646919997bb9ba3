"""Ctrl-C and SIGTERM end a training in the same orderly way, at a moment when everything is whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sb3_lql import LQL
from sb3_lql.collecting.interrupts import interrupts_deferred, sigterm_interrupts
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from tests.test_faults import BROKEN_AT, Counter, check_transitions, fails, interrupts


def test_sigterm_raises_what_ctrl_c_raises_and_only_within() -> None:
    with sigterm_interrupts():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # the same signal, sent again, while the user saves
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_handler_of_the_users_own_stays_in_charge() -> None:
    received = []
    signal.signal(signal.SIGTERM, lambda *_: received.append("own"))
    try:
        with sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["own"]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_threads_can_learn_too(tiny: dict[str, Any]) -> None:
    model = LQL("MlpPolicy", "Pendulum-v1", **tiny)
    thread = threading.Thread(target=model.learn, args=(20,))
    thread.start()
    thread.join()
    assert model.num_timesteps == 20


def test_a_process_that_was_forked_within_ends_by_sigterm() -> None:
    with sigterm_interrupts():
        ready, started = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(started, b"!")  # Python forgets signals that come while it forks
            while True:
                time.sleep(0.01)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_interrupt_takes_effect_at_the_end(number: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt), sigterm_interrupts():  # noqa: PT012
            with interrupts_deferred():
                os.kill(os.getpid(), number)
                steps.append("within")
            steps.append("after")
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == ["within"]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("fault", "error"), [(interrupts, KeyboardInterrupt), (fails, RuntimeError)])
def test_a_checkpoint_is_saved_when_an_exception_ends_the_training(
    tiny: dict[str, Any], tmp_path: Path, fault: Any, error: type[BaseException], nested: bool
) -> None:
    model = LQL("MlpPolicy", Counter(fault), **tiny | dict(learning_starts=20))
    saver: Any = SaveCheckpointCallback(10_000, tmp_path)
    with pytest.raises(error):
        model.learn(1_000, callback=[saver] if nested else saver)
    loaded = LQL.load_checkpoint(tmp_path, Counter())
    assert loaded.num_timesteps == model.num_timesteps == BROKEN_AT - 1
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.size() == BROKEN_AT - 1
    check_transitions(loaded)


def test_a_checkpoint_that_cannot_be_saved_does_not_hide_the_exception(tiny: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "file"
    saver = SaveCheckpointCallback(10_000, folder)
    folder.write_text("where the folder would be")
    with pytest.warns(UserWarning, match="No checkpoint could be saved"), pytest.raises(RuntimeError, match="fell off"):
        LQL("MlpPolicy", Counter(fails), **tiny).learn(100, callback=saver)


SCRIPT = """
import sys
from stable_baselines3.common.callbacks import ConvertCallback
from sb3_lql import LQL
from sb3_lql.saving.callbacks import SaveCheckpointCallback
settings = dict(learning_starts=20, batch_size=8, buffer_size=10**5, policy_kwargs=dict(net_arch=[8]), compile=False)
print("learning", flush=True)
LQL("MlpPolicy", "Pendulum-v1", **settings).learn(10**7, callback=[
    SaveCheckpointCallback(10**6, sys.argv[1]),
    ConvertCallback(lambda names, _: names["self"].num_timesteps != 200 or print("stop me", flush=True) is None),
])
"""


@pytest.mark.slow
def test_a_plain_script_with_checkpoints_loses_nothing_to_sigterm(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["learning\n", "stop me\n"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith("KeyboardInterrupt: SIGTERM")
    model = LQL.load_checkpoint(tmp_path, "Pendulum-v1")
    assert model.num_timesteps >= 200
    assert model.replay_buffer is not None
    # A step during whose callbacks the signal comes is counted and not stored
    assert model.num_timesteps - model.replay_buffer.size() in (0, 1)
