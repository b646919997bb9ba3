"""Environments in subprocesses, which may die, hang, or be interrupted during a step."""

import time
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_lql.collecting.interrupts import interrupts_deferred


class WorkerDiedError(RuntimeError, EOFError):
    """An environment's process has died. SB3 and the RL Zoo expect an ``EOFError``, which has no message."""

    def __init__(self) -> None:
        super().__init__(
            "An environment's process has died; if it raised an error, it is printed above. The model is intact: save "
            "it, or resume with new environments: set_env(...), then learn(..., reset_num_timesteps=False)."
        )


#: SB3's commands that are answered.
ANSWERED = frozenset(
    {"step", "reset", "render", "get_spaces", "env_method", "get_attr", "has_attr", "set_attr", "is_wrapped"}
)


class WatchedConnection:
    """
    A pipe to a worker of ``SubprocVecEnv``. With SB3's own pipes, a dead worker blocks forever if other workers were
    forked with its end of the pipe, and an answer left over from an interrupted command is taken for the answer to the
    next one. This pipe raises in the first case and drops the answer in the second; otherwise it is the same.

    :param connection: the pipe
    :param process: the worker
    """

    def __init__(self, connection: Connection, process: BaseProcess) -> None:
        self.connection = connection
        self.process = process
        #: Commands whose answers are still awaited.
        self.unanswered = 0
        #: Answers to drop when they arrive.
        self.stale = 0

    def __getattr__(self, name: str) -> Any:
        if name == "connection":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.connection, name)

    def abandon(self) -> None:
        """Drop the answers to all commands sent so far when they arrive."""
        self.stale += self.unanswered
        self.unanswered = 0

    def send(self, command: Any) -> None:
        """
        :param command: name and data, as SB3 sends them
        :raises WorkerDiedError: if the worker has died, unless the command is "close"
        """
        name = command[0] if isinstance(command, tuple) and command else None
        try:
            while self.stale:
                self.recv()
            if not self.process.is_alive():
                raise WorkerDiedError
            with interrupts_deferred():
                self.connection.send(command)
                self.unanswered += name in ANSWERED
        except (EOFError, ConnectionError) as error:
            if name != "close":
                raise WorkerDiedError from error

    def recv(self) -> Any:
        """
        :return: the oldest answer
        :raises WorkerDiedError: if the worker has died
        """
        if self.connection not in wait([self.connection, self.process.sentinel]):
            raise WorkerDiedError
        try:
            with interrupts_deferred():
                answer = self.connection.recv()
                if self.stale:
                    self.stale -= 1
                else:
                    self.unanswered = max(self.unanswered - 1, 0)
        except (EOFError, ConnectionError) as error:
            raise WorkerDiedError from error
        return answer


def watch_workers(env: VecEnv) -> None:
    """
    Give environments in subprocesses watched pipes, once; leave others alone.

    :param env: environments, wrapped or not
    """
    base = subprocesses(env)
    if base is not None and not isinstance(base.remotes[0], WatchedConnection):
        pairs = zip(base.remotes, base.processes, strict=True)
        base.remotes = tuple(WatchedConnection(remote, process) for remote, process in pairs)


def abandon_step(env: VecEnv) -> None:
    """
    Abandon an interrupted step, without waiting for its results, since a worker may hang.

    :param env: environments, wrapped or not
    """
    base = subprocesses(env)
    if base is None:
        return
    base.waiting = False
    for remote in base.remotes:
        if isinstance(remote, WatchedConnection):
            remote.abandon()


def are_idle(env: VecEnv, seconds: float) -> bool:
    """
    :param env: environments, wrapped or not
    :param seconds: how long to wait for busy workers
    :return: whether they would answer a command at once
    :raises WorkerDiedError: if a worker has died
    """
    base = subprocesses(env)
    deadline = time.monotonic() + seconds
    for remote in [] if base is None else base.remotes:
        while isinstance(remote, WatchedConnection) and remote.stale:
            if not wait([remote.connection, remote.process.sentinel], max(deadline - time.monotonic(), 0.0)):
                return False
            remote.recv()
    return True


def subprocesses(env: VecEnv) -> SubprocVecEnv | None:
    """
    :param env: environments, wrapped or not
    :return: the ``SubprocVecEnv`` below wrappers, if there is one
    """
    # Not `unwrapped`: a user's wrapper may wrap something other than a VecEnv
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env if isinstance(env, SubprocVecEnv) else None
