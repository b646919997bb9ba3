"""Environments in processes of their own, of which one may die, hang, or be left in the middle of a step."""

import time
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_lql.collecting.interrupts import interrupts_deferred


class WorkerDiedError(RuntimeError, EOFError):
    """An environment's process has died. SB3 and the RL Zoo expect an ``EOFError``, which says nothing."""

    def __init__(self) -> None:
        super().__init__(
            "An environment's process has died; if it raised an error, that is printed above. The model has kept all "
            "that it learned: save it, or resume with new environments: set_env(...), then learn(..., "
            "reset_num_timesteps=False)."
        )


#: Commands of SB3's, each of which is answered once.
ANSWERED = frozenset(
    {"step", "reset", "render", "get_spaces", "env_method", "get_attr", "has_attr", "set_attr", "is_wrapped"}
)


class WatchedConnection:
    """
    The pipe to a worker of ``SubprocVecEnv``. SB3 waits for ever for a worker that has died where the others were
    forked with its end of the pipe, and takes an answer that an interrupt has left in the pipe for that to its next
    command. This one notices the death, and drops such answers. Otherwise it is that pipe, whatever is sent through it.

    :param connection: the pipe
    :param process: the worker
    """

    def __init__(self, connection: Connection, process: BaseProcess) -> None:
        self.connection = connection
        self.process = process
        #: SB3's commands whose answer has not been received.
        self.unanswered = 0
        #: Answers that will come, and that nobody waits for.
        self.stale = 0

    def __getattr__(self, name: str) -> Any:
        if name == "connection":  # of a copy in the making
            raise AttributeError(name)
        return getattr(self.connection, name)

    def abandon(self) -> None:
        """Drop the answers to all commands that were sent, when they come."""
        self.stale += self.unanswered
        self.unanswered = 0

    def send(self, command: Any) -> None:
        """
        :param command: for SB3's workers, name and data
        :raises WorkerDiedError: if the worker has died, unless it is told to close
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
    Give environments in processes of their own watched pipes, once; do nothing to others.

    :param env: environments, wrapped or not
    """
    base = subprocesses(env)
    if base is not None and not isinstance(base.remotes[0], WatchedConnection):
        pairs = zip(base.remotes, base.processes, strict=True)
        base.remotes = tuple(WatchedConnection(remote, process) for remote, process in pairs)


def abandon_step(env: VecEnv) -> None:
    """
    Forget a step that was interrupted: its results are dropped when they come. Waits for nobody, as a worker may hang.

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
    :param seconds: how long to wait for workers that are in the middle of something
    :return: whether a question to them would be answered at once
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
    # Not by `unwrapped`: what a user's wrapper wraps may be no VecEnv
    while isinstance(env, VecEnvWrapper):
        env = env.venv
    return env if isinstance(env, SubprocVecEnv) else None
