"""Environments in processes that die, hang or are interrupted: nobody waits for ever, nothing stale is received."""

import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_lql import LQL
from sb3_lql.collecting.workers import WatchedConnection, WorkerDiedError
from tests.test_faults import Counter, check_transitions

pytestmark = pytest.mark.slow


class Faulty(Counter):
    """
    Does something at a step, or in a reset.

    :param at: the step; 0 for the first reset
    :param what: "dies", "raises", "hangs" (and ignores Ctrl-C)
    """

    def __init__(self, at: int, what: str) -> None:
        super().__init__()
        self.at, self.what = at, what

    def observe(self, count: float) -> Any:
        if count >= self.at:
            if self.what == "dies":
                os._exit(9)
            if self.what == "raises":
                raise OSError("no simulator")
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(3600)
        return super().observe(count)


@contextmanager
def processes(*functions: Any, method: str = "fork") -> Iterator[SubprocVecEnv]:
    env = SubprocVecEnv(list(functions), start_method=method)
    try:
        yield env
    finally:
        for process in env.processes:
            process.kill()


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Waiting for ever is a failure, not a time-out of the whole suite."""

    def fail(*_: Any) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    handler = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


@pytest.mark.parametrize(
    ("at", "what", "method", "normalized"),
    [
        (0, "raises", "fork", False),
        (0, "dies", "fork", True),
        (12, "dies", "fork", False),
        (12, "raises", "fork", True),
        (12, "dies", "forkserver", False),
    ],
)
def test_a_process_that_dies_is_reported_and_so_is_learning_on_without_it(
    tiny: dict[str, Any], at: int, what: str, method: str, normalized: bool
) -> None:
    with at_most(60), processes(Counter, lambda: Faulty(at, what), Counter, method=method) as env:
        wrapped: Any = VecNormalize(env) if normalized else env
        model = LQL("MlpPolicy", wrapped, **tiny | dict(learning_starts=12))
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"process has died.*set_env"):
                model.learn(100, reset_num_timesteps=False)
        assert model.num_timesteps == 3 * max(at - 1, 0)
        model.set_env(make_vec_env(Counter, 3))
        model.learn(30, reset_num_timesteps=False)
        wrapped.close()


def test_a_process_that_is_dead_before_it_is_first_used_is_reported(tiny: dict[str, Any]) -> None:
    with at_most(30), processes(Counter, Counter) as env:
        model = LQL("MlpPolicy", env, **tiny)
        env.processes[1].kill()
        env.processes[1].join()
        with pytest.raises(RuntimeError, match="process has died"):
            model.learn(10)


class DiesWhenAskedForGoals(BitFlippingEnv):
    asked = 0

    def compute_reward(self, *args: Any) -> Any:
        self.asked += 1
        if self.asked > 40:
            os._exit(9)
        return super().compute_reward(*args)


def test_a_process_that_dies_while_hindsight_asks_for_rewards_is_reported(tiny: dict[str, Any]) -> None:
    functions = [lambda: DiesWhenAskedForGoals(continuous=True), lambda: BitFlippingEnv(continuous=True)]
    with at_most(60), processes(*functions) as env:
        kwargs = tiny | dict(learning_starts=30, replay_buffer_class=HerReplayBuffer)
        with pytest.raises(RuntimeError, match="process has died"):
            LQL("MultiInputPolicy", env, **kwargs).learn(400)


def test_ctrl_c_does_not_wait_for_a_simulator_that_hangs(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Neither does a checkpoint, nor new environments."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with at_most(40), processes(Counter, lambda: Faulty(20, "hangs")) as env:
            model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=10))
            signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGINT))

            def soon(variables: dict[str, Any], _: dict[str, Any]) -> bool:
                if variables["self"].num_timesteps == 38:
                    os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", f"sleep 1; kill -USR1 {os.getpid()}")
                return True

            with pytest.raises(KeyboardInterrupt):
                model.learn(100, callback=soon)
            assert model.num_timesteps == 38
            start = time.monotonic()
            checkpoint = model.save_checkpoint(tmp_path)
            assert time.monotonic() - start < 10
            assert LQL.load_checkpoint(checkpoint, make_vec_env(Counter, 2)).num_timesteps == 38
            model.set_env(make_vec_env(Counter, 2))
            model.learn(20, reset_num_timesteps=False)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("unreceived", [1, 2])
def test_results_that_an_interrupt_left_in_the_pipes_are_dropped(
    tiny: dict[str, Any], tmp_path: Path, unreceived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does while the environments step, before the results of both, or of the second, were received."""
    with at_most(60), processes(Counter, Counter) as env:
        model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=20))
        model.learn(40)

        def interrupt() -> None:
            for remote in env.remotes[unreceived:]:
                remote.recv()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(env, "step_wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                model.learn(20, reset_num_timesteps=False)
        checkpoint = model.save_checkpoint(tmp_path)
        model.learn(20, reset_num_timesteps=False)
        check_transitions(model)
        assert model.num_timesteps == 60
        assert LQL.load_checkpoint(checkpoint, make_vec_env(Counter, 2)).learn(20, reset_num_timesteps=False)
        env.close()


def test_environments_can_be_closed_after_an_interrupt(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with at_most(30), processes(Counter, Counter) as env:
        model = LQL("MlpPolicy", env, **tiny).learn(10)

        def interrupt() -> None:
            for remote in env.remotes:  # all was received, and SB3's flag still says that it was not
                remote.recv()
            raise KeyboardInterrupt

        monkeypatch.setattr(env, "step_wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.learn(10, reset_num_timesteps=False)
        env.close()


def test_workers_are_asked_nothing_but_to_step_and_to_reset(tiny: dict[str, Any]) -> None:
    env = make_vec_env(Counter, 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs=dict(start_method="fork"))
    model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=10))
    commands: list[str] = []
    for remote in env.remotes:  # type: ignore[attr-defined]
        send = remote.send

        def noted(command: Any, send: Any = send) -> None:
            commands.append(command[0])
            send(command)

        remote.send = noted
    for _ in range(2):
        model.learn(20, reset_num_timesteps=False)
    assert commands == ["reset"] * 2 + ["step"] * 40
    env.close()


def test_a_pipe_drops_what_was_abandoned_and_notices_a_death() -> None:
    with at_most(30), processes(Counter) as env:
        pipe = WatchedConnection(env.remotes[0], env.processes[0])
        pipe.send(("get_attr", "steps"))
        pipe.send(("get_attr", "is_dict"))
        pipe.abandon()
        pipe.send(("get_attr", "metadata"))
        assert pipe.recv() == gym.Env.metadata
        assert pipe.fileno() == env.remotes[0].fileno()
        env.processes[0].kill()
        env.processes[0].join()
        for use in (pipe.recv, lambda: pipe.send(("get_attr", "steps"))):
            with pytest.raises(WorkerDiedError):
                use()
        pipe.send(("close", None))  # SB3's `close` tells the others, too


class Protocol(SubprocVecEnv):
    """Says more to its workers than SB3 does: what is not answered, what is answered twice; and waits by itself."""

    def step_async(self, actions: Any) -> None:
        for remote in self.remotes:
            remote.connection.send(("is_wrapped", Counter))
        super().step_async(actions)

    def step_wait(self) -> Any:
        for remote in self.remotes:
            assert remote.recv() in (True, False)
        multiprocessing.connection.wait(self.remotes, 5)
        return super().step_wait()


def test_a_class_of_ones_own_may_have_a_protocol_of_its_own(tiny: dict[str, Any]) -> None:
    with at_most(60):
        env = Protocol([Counter, Counter], start_method="fork")
        model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=10)).learn(40)
        check_transitions(model)
        env.close()


def test_commands_that_are_not_sb3s_are_not_counted() -> None:
    """A worker may leave them unanswered."""
    here, there = multiprocessing.Pipe()
    with processes(Counter) as env:
        pipe = WatchedConnection(here, env.processes[0])
        for command in (("note", 1), "note", ("note",)):
            pipe.send(command)
        pipe.abandon()
        pipe.send(("get_attr", "steps"))
        there.send(1)
        there.send(2)
        assert [pipe.recv(), pipe.recv()] == [1, 2]
        pipe.send("note")
