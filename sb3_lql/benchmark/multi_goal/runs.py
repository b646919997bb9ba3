"""What is measured of a trained agent: as it is, with its favourite goal blocked, and after further training there."""

from typing import Any

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.benchmark.multi_goal.episodes import ENV_ID, Episodes, run_episodes
from sb3_lql.benchmark.multi_goal.measures import SITUATIONS, summarize


def measure(
    model: OffPolicyAlgorithm, n_episodes: int, n_more_timesteps: int, seed: int
) -> tuple[dict[str, Any], dict[str, Episodes]]:
    """
    Run episodes of a trained agent in all three situations. It ends as one that has learned on where its favourite goal
    is blocked; its replay buffer is kept, and with it what it remembers of that goal.

    :param model: trained, with its replay buffer
    :param n_episodes: of each situation
    :param n_more_timesteps: steps for which it learns on
    :param seed: that of its training
    :return: results of :func:`~sb3_lql.benchmark.multi_goal.measures.summarize` by situation, with the ``favourite``
        and how many transitions the ``replay_buffer`` holds ``before`` and ``after``; and the episodes by situation
    """
    free = run_episodes(model, n_episodes, seed)
    blocked = [free.favourite]
    episodes = {"free": free, "blocked": run_episodes(model, n_episodes, seed, blocked)}
    before = _n_transitions(model)
    _learn_on(model, blocked, n_more_timesteps, seed)
    episodes["adapted"] = run_episodes(model, n_episodes, seed, blocked)
    measures = {situation: summarize(episodes[situation]) for situation in SITUATIONS}
    buffer = {"before": before, "after": _n_transitions(model)}
    return {**measures, "favourite": free.favourite, "replay_buffer": buffer}, episodes


def _learn_on(model: OffPolicyAlgorithm, blocked: list[int], n_timesteps: int, seed: int) -> None:
    before = model.get_env()
    model.set_env(make_vec_env(ENV_ID, model.n_envs, seed=seed, env_kwargs={"blocked": blocked}))
    if before is not None:
        before.close()
    model.learn(n_timesteps, reset_num_timesteps=False)


def _n_transitions(model: OffPolicyAlgorithm) -> int:
    """In the replay buffer."""
    assert model.replay_buffer is not None
    return model.replay_buffer.size() * model.n_envs
