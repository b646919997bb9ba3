"""Entries take turns, figures are quantiles of what was measured, sizes are those of the tasks."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.buffers import ReplayBuffer
from torch.utils.flop_counter import FlopCounterMode

from sb3_lql.benchmark import speed
from sb3_lql.benchmark.speed import SIZES, Entry, RandomEnv, Timing, bare_products, make_entries, make_model, make_sac

# Pusher-v4 cannot be built any more; the size is the same in v5. Those of Ant and Humanoid are not
TASKS = {
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "humanoid": "Humanoid-v4",
    "hopper": "Hopper-v4",
    "ant": "Ant-v4",
    "swimmer": "Swimmer-v4",
    "pusher": "Pusher-v5",
    "reacher": "Reacher-v4",
    "inverteddoublependulum": "InvertedDoublePendulum-v4",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_those_of_the_tasks(size: str) -> None:
    task, env = gym.make(TASKS[size]), RandomEnv(*SIZES[size])
    for ours, theirs in ((env.observation_space, task.observation_space), (env.action_space, task.action_space)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype


@pytest.mark.filterwarnings("ignore:.*infinity")  # so are MuJoCo's observations
def test_the_environment_is_a_proper_one() -> None:
    check_env(RandomEnv(3, 2), skip_render_check=True)


def test_entries_take_turns() -> None:
    order: list[str] = []
    entries = [Entry("group", name, lambda name=name: order.append(name)) for name in "abc"]  # type: ignore[misc]
    timings = speed.measure(entries, repetitions=4, device="cpu")
    assert order == list("abc") * (1 + speed.N_WARM_UPS + 4)
    assert [timing.name for timing in timings] == list("abc")
    assert all(len(timing.calls_ms) == 4 for timing in timings)


def test_times_are_milliseconds_and_those_of_first_calls_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(1_000.0))  # a call takes one second
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    (timing,) = speed.measure([Entry("update", "naive", lambda: None)], repetitions=3, device="cpu")
    assert timing == Timing("update", "naive", first_call_s=1.0, calls_ms=[1e3, 1e3, 1e3])


def test_ratios_are_to_the_groups_first_and_to_sac() -> None:
    timings = [
        Timing("update", "naive", 0.5, [8.0, 9.0, 10.0, 11.0, 30.0]),
        Timing("update", "eager", 0.5, [5.0] * 5),
        Timing("update", "SAC", 0.5, [2.0] * 5),
        Timing("chain", "bare matrix products", 0.5, [3.0] * 5),
        Timing("chain", "eager", 0.5, [12.0] * 5),
    ]
    naive, eager, sac, bare, chain = speed.summarize(timings)
    assert naive["median_ms"] == 10.0
    assert naive["quartiles_ms"] == [9.0, 11.0]
    assert naive["first_call_s"] == 0.5
    assert [row["ratio_to_reference"] for row in (naive, eager, sac, bare, chain)] == [1.0, 0.5, 0.2, 1.0, 4.0]
    assert [row["ratio_to_sac"] for row in (naive, eager, sac, bare, chain)] == [5.0, 2.5, 1.0, None, None]


def test_models_hold_transitions_and_have_not_learned(algorithm: Any) -> None:
    model = make_model("hopper", algorithm.__name__.lower(), "cpu", compiled=False)
    assert type(model) is algorithm
    assert model._n_updates == 0
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() == speed.N_TRANSITIONS


def test_sac_has_networks_like_ours_and_sb3s_buffer_of_float64() -> None:
    sac = make_sac("hopper", "cpu")
    assert type(sac.replay_buffer) is ReplayBuffer
    assert sac.replay_buffer.sample(4).observations.dtype == th.float64
    widths = [[m.out_features for m in net.modules() if isinstance(m, th.nn.Linear)] for net in (sac.actor, sac.critic)]
    assert widths == [[256, 256, 256, 3, 3], [256, 256, 256, 1] * 2]
    assert {type(m) for m in sac.critic.q_networks[0].children()} == {th.nn.Linear, th.nn.Mish}


def test_bare_products_are_a_chains() -> None:
    model: Any = make_model("hopper", "nclql", "cpu", compiled=False)
    with FlopCounterMode(display=False) as counter:
        result = bare_products(model, batch_size=10)()
    assert result.shape == (2, 10, 3)
    # 20 steps, 2 critics, multiply and add; 3 x 256 once and 256 x 256 twice, forward and back
    assert counter.get_total_flops() == 20 * 2 * 2 * 10 * 2 * (3 * 256 + 2 * 256 * 256)


@pytest.mark.parametrize("algo", ["lql", "nclql"])
def test_every_entry_can_be_called_and_references_come_first(algo: str) -> None:
    entries = make_entries("hopper", algo, "cpu", batch_size=4, compiled=False)
    for entry in entries:
        entry.call()
    groups = {group: [name for g, name, *_ in entries if g == group] for group, *_ in entries}
    predict = ["naive", "eager", "SAC"]
    assert groups == {
        "update": predict,
        "chain": ["bare matrix products", "naive", "eager"],
        "iteration": ["eager", "SAC"],
        "deterministic 1": ["eager", "SAC"],
        "deterministic 20": ["eager", "SAC"],
        "predict 1": predict,
        "predict 5": predict,
    }


def test_a_comparison_times_updates_by_twos() -> None:
    models = {name: make_model("hopper", name, "cpu", compiled=False) for name in ("nclql", "mvp")}
    sac = make_sac("hopper", "cpu")
    entries = speed.make_comparison(models, sac, "hopper", batch_size=4)
    assert [entry.name for entry in entries] == ["nclql", "mvp", "SAC"] * 3
    for entry in entries:
        entry.call()
    assert [model._n_updates for model in (*models.values(), sac)] == [2, 2, 2]
    assert [entry.n_parts for entry in entries] == [2] * 3 + [1] * 6


def test_a_time_is_that_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_seconds", lambda call, device: 0.5)
    (timing,) = speed.measure([speed.Entry("update", "a", lambda: None, 2)], repetitions=3, device="cpu")
    assert timing.calls_ms == [250.0] * 3
