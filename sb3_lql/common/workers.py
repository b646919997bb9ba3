"""Environments in processes of their own, of which one may have died, or have been left in the middle of a step."""

from multiprocessing.connection import wait

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv


def await_results(env: VecEnv) -> None:
    """
    Wait until all processes have sent something. SB3 would wait for ever for a dead one where the others were forked
    with its end of the pipe.

    :param env: environments, wrapped or not
    :raises EOFError: if one is dead
    """
    env = env.unwrapped
    if not isinstance(env, SubprocVecEnv):
        return
    deaths = [process.sentinel for process in env.processes]
    waiting = list(env.remotes)
    while waiting:
        ready = wait([*waiting, *deaths])
        if any(death in ready for death in deaths):
            raise EOFError
        waiting = [remote for remote in waiting if remote not in ready]


def discard_results(env: VecEnv) -> None:
    """
    Receive what nobody has waited for, so that the next question to a process gets its own answer.

    :param env: environments, wrapped or not
    :raises EOFError: if a process is dead
    :raises OSError: if it is, or if they were closed
    """
    env = env.unwrapped
    if not isinstance(env, SubprocVecEnv):
        return
    # Where this was interrupted, its own questions are among those that nobody has waited for
    unanswered = vars(env).setdefault("_unanswered", [0] * env.num_envs)
    for index, remote in enumerate(env.remotes):
        remote.send(("has_attr", "step"))  # of all that is asked, this has a bool for an answer
        unanswered[index] += 1
    for index, (remote, process) in enumerate(zip(env.remotes, env.processes, strict=True)):
        while unanswered[index]:
            if remote not in wait([remote, process.sentinel]):
                raise EOFError
            unanswered[index] -= isinstance(remote.recv(), bool)
    env.waiting = False
