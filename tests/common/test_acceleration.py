"""Compiled and recorded functions compute what the plain ones do, and give way where they cannot work."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch as th
from torch import nn
from torch._dynamo.testing import CompileCounter

from sb3_lql import LQL, NCLQL
from sb3_lql.common.acceleration import GraphedFunction, compiled, record_cuda_graph
from sb3_lql.engine import algorithm as algorithm_module
from sb3_lql.langevin.runner import compiled_langevin_chain, langevin_chain
from sb3_lql.networks import critics as critics_module
from sb3_lql.networks.critics import EnsembleCritic
from tests.langevin.plain_chain import plain_chain
from tests.operations import NoSynchronisation


class Counter:
    """Adds its argument to what it has, times a Python number."""

    def __init__(self) -> None:
        self.total = th.zeros(3)
        self.factor = 1.0

    def add(self, values: dict[str, th.Tensor], missing: None = None) -> tuple[th.Tensor, None]:
        self.total += self.factor * values["x"]
        return 2 * self.total, missing

    def state(self) -> list[th.Tensor]:
        return [self.total]

    def constants(self) -> float:
        return self.factor

    def graphed(self) -> GraphedFunction:
        return GraphedFunction(self.add, self.state, self.constants)


def test_a_replay_computes_from_new_inputs_and_returns_tensors_of_its_own(recordings: list[Any]) -> None:
    counter = Counter()
    add = counter.graphed()
    results = [add({"x": th.full((3,), float(step))}, None)[0] for step in range(6)]
    assert len(recordings) == 1
    assert [result[0].item() for result in results] == [0, 2, 6, 12, 20, 30]
    assert counter.total.tolist() == [15, 15, 15]


def test_no_garbage_is_collected_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """To free another graph, of an agent that was dropped, would end the recording."""
    for name, value in dict(CUDAGraph=Mock(), Stream=Mock(), graph=lambda *args, **kwargs: nullcontext()).items():
        monkeypatch.setattr(th.cuda, name, value)
    assert record_cuda_graph(gc.isenabled, []).outputs is False
    assert gc.isenabled()


def test_a_recording_is_made_anew_for_other_shapes_constants_and_addresses(recordings: list[Any]) -> None:
    counter = Counter()
    add = counter.graphed()
    one, row = {"x": th.ones(3)}, {"x": th.ones(1)}
    for _ in range(5):
        add(one)
    assert len(recordings) == 1
    for _ in range(5):
        add(row)
    assert len(recordings) == 2
    counter.factor = 3.0
    for _ in range(5):
        add(one)
    assert len(recordings) == 3
    counter.total = th.zeros(3)
    assert add(one)[0].tolist() == [6, 6, 6]
    assert len(recordings) == 4


def test_nothing_is_recorded_on_a_cpu() -> None:
    counter = Counter()
    add = counter.graphed()
    for _ in range(6):
        add({"x": th.ones(3)})
    assert counter.total.tolist() == [6, 6, 6]
    assert not add._signatures


def test_shapes_that_were_not_used_for_long_are_forgotten(recordings: list[Any]) -> None:
    counter = Counter()
    add = counter.graphed()
    for size in range(1, 20):
        counter.total = th.zeros(size)
        for _ in range(5):
            add({"x": th.ones(size)})
        assert counter.total.tolist() == [5] * size
    assert len(recordings) == 19
    assert len(add._signatures) == GraphedFunction.MAX_SIGNATURES


def test_what_waits_for_the_device_is_not_recorded_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, recordings: list[Any]
) -> None:
    def wait(x: th.Tensor) -> th.Tensor:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally at ...)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        return 2 * x

    modes: list[Any] = ["default"]

    def set_mode(mode: str) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet ...", stacklevel=1)
        modes.append(mode)

    monkeypatch.setattr(th.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(th.cuda, "set_sync_debug_mode", set_mode)
    monkeypatch.setattr(
        GraphedFunction, "_warm_up", lambda self, args, last: self._watch(args) if last else self.function(*args)
    )
    function = GraphedFunction(wait, list, tuple)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(6):
            assert function(th.ones(2)).tolist() == [2, 2]
    assert not recordings
    assert modes == ["default", "warn", "default"]
    messages = [str(warning.message) for warning in caught]
    assert sum(message.startswith("CUDA graphs are not used") for message in messages) == 1
    assert messages.count("something else") == 6
    assert not any("prototype" in message for message in messages)


@pytest.mark.skipif(not th.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_on_a_gpu_a_replayed_update_is_the_plain_one(algorithm_class: Any) -> None:
    device = f"cuda:{th.cuda.device_count() - 1}"
    plain, _ = parameters_after_changes(algorithm_class, compile=False, device=device)
    replayed, _ = parameters_after_changes(algorithm_class, device=device)
    th.testing.assert_close(replayed, plain, atol=1e-4, rtol=0)


def test_copies_and_pickles_of_a_graphed_function_work_on_their_own_state() -> None:
    counter = Counter()
    holder: dict[str, Any] = {"counter": counter, "add": counter.graphed()}
    for other in (copy.deepcopy(holder), pickle.loads(pickle.dumps(holder))):
        other["add"]({"x": th.ones(3)})
        assert other["counter"].total.tolist() == [1, 1, 1]
    assert counter.total.tolist() == [0, 0, 0]


def settings(**changes: Any) -> dict[str, Any]:
    return (
        dict(
            policy_kwargs=dict(net_arch=[8, 8]),
            buffer_size=500,
            learning_starts=20,
            batch_size=16,
            n_langevin_steps=2,
            learning_rate=1e-2,
            seed=0,
            device="cpu",
        )
        | changes
    )


def parameters_after_changes(algorithm_class: Any, **changes: Any) -> tuple[th.Tensor, dict[str, float]]:
    """Train, and change everything that may change between updates."""
    # Rates that are the same number in float32, as which a recording holds them
    rates = settings(learning_rate=lambda remaining: 2**-6 if remaining > 0.3 else 2**-8)
    model = algorithm_class("MlpPolicy", "Pendulum-v1", **rates | changes).learn(40)
    model.tau, model.inverse_temperature = 0.5, 20.0
    model.learn(10, reset_num_timesteps=False)
    model.gamma, model.reward_scale = 0.5, 2.0
    model.set_parameters(model.get_parameters())
    model.learn(10, reset_num_timesteps=False)
    for _ in range(4):
        model.predict(np.zeros((5, 3), np.float32))
    parameters = [*model.critic.parameters(), *model.critic_target.parameters()]
    return nn.utils.parameters_to_vector(parameters).detach(), model.logger.name_to_value


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_a_recorded_update_follows_learning_rate_tau_temperature_discount_and_new_parameters(
    algorithm_class: Any, recordings: list[Any]
) -> None:
    """Recorded on the CPU with the numbers of the recording, as a CUDA graph would; bit for bit the plain update."""
    plain, plain_log = parameters_after_changes(algorithm_class, compile=False)
    assert not recordings
    recorded, recorded_log = parameters_after_changes(algorithm_class)
    # Of the update: the first one, at another discount, with another optimiser's state. And one of five actions
    assert len(recordings) == 3 + 1
    assert th.equal(recorded, plain)
    assert recorded_log["train/critic_loss"] == plain_log["train/critic_loss"]


def test_a_recorded_update_stops_at_a_loss_that_is_not_finite(recordings: list[Any]) -> None:
    model = NCLQL("MlpPolicy", "Pendulum-v1", **settings()).learn(40)
    assert recordings
    before = nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    assert model.replay_buffer is not None
    model.replay_buffer.rewards[:] = np.nan
    first_update = model._n_updates + 1
    with pytest.raises(ValueError, match=rf"update {first_update} critic_loss was nan"):
        model.train(3, 16)
    assert th.equal(nn.utils.parameters_to_vector(model.policy.parameters()), before)


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_an_update_never_waits_for_the_device(algorithm_class: Any) -> None:
    model = algorithm_class("MlpPolicy", "Pendulum-v1", **settings()).learn(30)
    replay_data = model.replay_buffer.sample(16)
    with pytest.raises(AssertionError, match="wait"), NoSynchronisation():  # type: ignore[no-untyped-call]
        th.ones(1).item()
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        model._update(replay_data)


ARCHITECTURES: list[dict[str, Any]] = [
    dict(net_arch=[16, 16, 16]),
    dict(net_arch=[12], activation_fn=nn.ReLU, n_critics=1),
    dict(net_arch=[8, 24], activation_fn=nn.SiLU, n_critics=3),
    dict(net_arch=[16, 8], activation_fn=nn.Tanh),
]


@pytest.mark.filterwarnings("error:torch.compile failed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_eager_and_autograd_chains_agree(architecture: dict[str, Any]) -> None:
    """Within 1e-4 of a box of side 2, after two steps; at other batch sizes too."""
    model = NCLQL(
        "MlpPolicy",
        "Pendulum-v1",
        n_noise_levels=2,
        inverse_temperature=1.0,
        **settings(policy_kwargs=architecture, n_langevin_steps=1),
    )
    policy = model.policy
    for batch_size in (6, 33, 1):
        features = th.randn(batch_size, 3)
        initial_actions, noise = 2 * th.rand(batch_size, 1) - 1, th.randn(2, batch_size, 1)
        arguments = policy.sampler, policy.critic, features, initial_actions, noise
        with th.no_grad():
            eager = langevin_chain(*arguments)
            fast = compiled_langevin_chain(*arguments)
        expected = plain_chain(model, features, initial_actions, noise)
        th.testing.assert_close(eager.actions, expected, atol=1e-4, rtol=0)
        th.testing.assert_close(fast.actions, expected, atol=1e-4, rtol=0)
        th.testing.assert_close(fast.score_norms, eager.score_norms, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("error:torch.compile failed")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_and_plain_critics_and_their_gradients_agree(
    architecture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With levels and without, with gradients and without, at another batch size too: in three versions."""
    critic = NCLQL("MlpPolicy", "Pendulum-v1", **settings(policy_kwargs=architecture)).critic
    watched = Mock(wraps=critics_module.compiled_q_values)
    monkeypatch.setattr(critics_module, "compiled_q_values", watched)

    def look(compiles: bool, *inputs: Any) -> list[th.Tensor]:
        critic.compiles = compiles
        with th.no_grad():
            values = critic(*inputs)
        estimate = critic(*inputs)
        return [values, estimate, *th.autograd.grad(estimate.square().sum(), list(critic.parameters()))]

    for batch_size in (6, 33):
        observations, actions = 3 * th.randn(batch_size, 3), 2 * th.rand(batch_size, 1) - 1
        for levels in ((), (th.randint(10, (batch_size,)),)):
            found, expected = (look(compiles, observations, actions, *levels) for compiles in (True, False))
            th.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert watched.call_count == 8


@pytest.mark.filterwarnings("error:torch.compile failed")
def test_compiled_updates_are_the_plain_ones() -> None:
    """From the same weights, as far as rounding lets a learner of short chains stay."""
    kwargs = settings(inverse_temperature=1.0, n_noise_levels=2, n_langevin_steps=1, learning_rate=1e-3)
    weights = []
    for compiles in (False, True):
        model = NCLQL("MlpPolicy", "Pendulum-v1", compile=compiles, **kwargs).learn(30)
        assert all(critic.compiles == compiles for critic in (model.critic, model.critic_target))
        weights.append(nn.utils.parameters_to_vector(model.policy.parameters()).detach())
    th.testing.assert_close(*weights, atol=1e-4, rtol=0)


def test_a_critic_is_compiled_once_for_all_models_of_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CompileCounter()
    monkeypatch.setattr(th, "compile", partial(th.compile, backend=backend))
    q_values = compiled(EnsembleCritic.sloped_q_values, batch_dims=dict(features=0, actions=0, noise_level=0))
    monkeypatch.setattr(critics_module, "compiled_q_values", q_values)
    for seed in range(3):
        model = NCLQL("MlpPolicy", "Pendulum-v1", **settings(seed=seed)).learn(23)
        for critic in (model.critic, model.critic_target):
            critic.compiles = True
        model.train(2, batch_size=16 + seed)
    # The target, the estimate and the smoothing step's prediction
    assert backend.frame_count == 3


@pytest.mark.filterwarnings("error:torch.compile failed")
@pytest.mark.parametrize("n_rows", [1, 2])
def test_a_single_row_is_computed_by_the_code_of_larger_batches(n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CompileCounter()
    monkeypatch.setattr(th, "compile", partial(th.compile, backend=backend))

    def sums(x: th.Tensor, y: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return x + y.T, y.cumsum(0)

    function = compiled(sums, batch_dims=dict(x=0, y=1), result_dims=(0, 1))
    for size in (5, n_rows, 7, n_rows):
        x, y = th.randn(size, 3), th.randn(3, size)
        for result, expected in zip(function(x, y), sums(x, y), strict=True):
            th.testing.assert_close(result, expected)
    assert backend.frame_count == 1


@pytest.mark.filterwarnings("error:torch.compile failed")
def test_a_critic_of_unknown_parts_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics_module, "compiled_q_values", Mock(side_effect=AssertionError("compiled")))
    for activation_fn, expectation in (
        (Doubled, nullcontext()),
        (nn.Mish, pytest.raises(AssertionError, match="compiled")),
    ):
        critic = LQL("MlpPolicy", "Pendulum-v1", **settings(policy_kwargs=dict(activation_fn=activation_fn))).critic
        critic.compiles = True
        with expectation:
            critic(th.zeros(2, 3), th.zeros(2, 1))


@pytest.mark.filterwarnings("error:torch.compile failed")
def test_a_compiled_chain_in_bfloat16_rounds_as_the_plain_one_does() -> None:
    """A compiler may leave out a rounding there and back."""
    model = LQL("MlpPolicy", "Pendulum-v1", **settings(policy_kwargs=dict(net_arch=[16, 16]), normalize_score=False))
    features, starts, noise = th.randn(50, 3), 2 * th.rand(50, 1) - 1, th.randn(2, 50, 1)
    norms = []
    for run in (langevin_chain, compiled_langevin_chain):
        for bfloat16 in (False, True):  # in this order: a chain compiled for float32 must not be taken for both
            with th.no_grad():
                norms.append(run(model.policy.sampler, model.critic, features, starts, noise, bfloat16).score_norms)
    exact, rounded, compiled_exact, compiled_rounded = norms
    th.testing.assert_close(compiled_exact, exact, atol=1e-5, rtol=1e-5)
    deviation = (rounded - exact).abs().mean()
    assert (compiled_rounded - exact).abs().mean() == pytest.approx(deviation.item(), rel=0.2)
    assert (compiled_rounded - rounded).abs().mean() < 0.2 * deviation


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_chain_compiles_in_one_piece(algorithm_class: Any, bfloat16: bool) -> None:
    model = algorithm_class(
        "MlpPolicy", "Pendulum-v1", **settings(n_noise_levels=2) if algorithm_class is NCLQL else settings()
    )
    sampler = model.policy.sampler
    draws = th.zeros(4, 1), th.zeros(sampler.chain_length, 4, 1)
    with th.no_grad():
        explanation = th._dynamo.explain(langevin_chain)(sampler, model.critic, th.zeros(4, 3), *draws, bfloat16)
    assert explanation.graph_count == 1
    assert not explanation.break_reasons


@pytest.mark.filterwarnings("error:torch.compile failed")
def test_everything_works_while_compiled(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning, saving, loading, copies, pickles, set parameters, other batch sizes: one compilation serves them."""
    calls: list[int] = []
    fast_chain = compiled_langevin_chain

    def counted(*args: Any) -> Any:
        calls.append(1)
        return fast_chain(*args)

    monkeypatch.setattr("sb3_lql.langevin.policies.compiled_langevin_chain", counted)
    model = LQL("MlpPolicy", "Pendulum-v1", compile=True, **settings()).learn(30)
    obs = np.ones((5, 3), np.float32)
    starts, noise = th.zeros(5, 1), th.randn(2, 5, 1)
    expected = model.policy.sample_actions(th.as_tensor(obs), initial_actions=starts, noise=noise)
    deterministic = model.predict(obs, deterministic=True)[0]

    model.save(tmp_path / "model.zip")
    loaded = LQL.load(tmp_path / "model.zip", env=model.get_env())
    copied = copy.deepcopy(model.policy)
    pickled = pickle.loads(pickle.dumps(model.policy))
    other = LQL("MlpPolicy", "Pendulum-v1", compile=True, **settings(seed=1))
    other.predict(obs)
    other.set_parameters(model.get_parameters())  # type: ignore[arg-type]
    players: list[Any] = [loaded, copied, pickled, other]
    for player in players:
        before = len(calls)
        policy = getattr(player, "policy", player)
        actions = policy.sample_actions(th.as_tensor(obs), initial_actions=starts, noise=noise)
        assert len(calls) == before + 1
        th.testing.assert_close(actions, expected, atol=1e-5, rtol=0)
        # Never compiled, and so the same wherever and whenever a model is loaded
        np.testing.assert_array_equal(player.predict(obs, deterministic=True)[0], deterministic)
        assert len(calls) == before + 1

    parameters = nn.utils.parameters_to_vector(copied.parameters()).clone()
    model.batch_size = 24
    model.learn(10, reset_num_timesteps=False)
    loaded.learn(30)
    assert th.equal(nn.utils.parameters_to_vector(copied.parameters()), parameters)
    assert not th.equal(nn.utils.parameters_to_vector(model.policy.parameters()), parameters)


def test_only_a_long_training_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithm_module, "UPDATES_WORTH_COMPILING", 20)
    calls: list[int] = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        return langevin_chain(*args)

    monkeypatch.setattr("sb3_lql.langevin.policies.compiled_langevin_chain", counted)
    model = LQL("MlpPolicy", "Pendulum-v1", **settings(learning_starts=5))
    model.learn(19)
    assert not calls
    model.learn(20)
    assert calls
    calls.clear()
    for changes in (dict(train_freq=2), dict(train_freq=(1, "episode")), dict(compile=False)):
        LQL("MlpPolicy", "Pendulum-v1", **settings(**changes)).learn(30)
        assert not calls
    LQL("MlpPolicy", "Pendulum-v1", **settings(gradient_steps=-1, train_freq=4)).learn(30)
    assert calls


class Doubled(nn.Module):
    def forward(self, x: th.Tensor) -> th.Tensor:
        return 2 * x.relu()


def test_what_has_no_closed_form_is_left_to_autograd_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    kwargs = settings(policy_kwargs=dict(net_arch=[8], activation_fn=Doubled), compile=True)
    model = LQL("MlpPolicy", "Pendulum-v1", verbose=1, **kwargs).learn(30)
    assert capsys.readouterr().out.count("left to autograd") == 1
    noise = th.randn(2, 7, 1)
    features, starts = th.randn(7, 3), th.zeros(7, 1)
    expected = plain_chain(model, features, starts, noise)
    th.testing.assert_close(model.policy.run_chain(features, starts, noise).actions, expected, atol=1e-5, rtol=0)
    LQL("MlpPolicy", "Pendulum-v1", verbose=0, **kwargs)
    LQL("MlpPolicy", "Pendulum-v1", verbose=1, **settings())
    assert "left to autograd" not in capsys.readouterr().out


def test_a_function_that_cannot_be_compiled_is_run_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not on this platform\nand more")

    monkeypatch.setattr(th, "compile", refuse)
    double = compiled(lambda x: 2 * x, {})
    with pytest.warns(UserWarning, match="torch.compile failed.*not on this platform") as caught:
        assert double(2) == 4
    assert len(caught) == 1
    assert double(3) == 6


def test_a_fault_of_the_function_itself_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th, "compile", lambda function: function)
    divide = compiled(lambda x: 1 / x, {})
    with pytest.raises(ZeroDivisionError):
        divide(0)
    assert divide(2) == 0.5


def test_without_a_compiler_there_is_one_warning_and_training_goes_on(tmp_path: Any) -> None:
    script = """
from sb3_lql import LQL
model = LQL("MlpPolicy", "Pendulum-v1", policy_kwargs=dict(net_arch=[4]), n_langevin_steps=1, learning_starts=5,
            batch_size=4, buffer_size=50, compile=True)
model.learn(20)
print("updates", model._n_updates)
"""
    environment = os.environ | dict(CXX="/no/compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "updates 15" in done.stdout
    assert done.stderr.count("torch.compile failed") == 1
    assert "a C++ compiler such as g++" in done.stderr
