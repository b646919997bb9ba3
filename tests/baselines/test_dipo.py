"""DIPO: numbers of the authors' code, the losses written out, and what becomes of stored actions."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from torch.nn import functional as F

from sb3_lql.baselines import DIPO
from sb3_lql.baselines.dipo import climb
from sb3_lql.common.buffer_layout import with_n_envs
from sb3_lql.common.buffers import ImprovedDictReplayBuffer, ImprovedNStepReplayBuffer, ImprovedReplayBuffer
from sb3_lql.diffusion.process import cosine_schedule
from sb3_lql.networks.layers import positional_codes
from tests.baselines.checks import (
    TINY,
    networks_reached,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)

#: Short chains and climbs, so that it is fast.
SMALL: dict[str, Any] = dict(n_denoising_steps=4, n_action_gradient_steps=3)


@pytest.fixture
def model() -> Any:
    return DIPO("MlpPolicy", "Pendulum-v1", **TINY | SMALL)


def towards(actions: th.Tensor) -> th.Tensor:
    """The gradient of ``-(a - 0.3) ** 2 / 2``."""
    return 0.3 - actions


def test_actions_climb_as_the_authors() -> None:
    """Gradients of at most 0.1 in norm, 20 steps: (-0.5, 0.9) becomes (0.105961, 0.320392)."""
    start = th.tensor([[-0.5], [0.9]])
    end = climb(towards, start, n_steps=20, learning_rate=0.03, largest_norm=0.1, epsilon=DIPO.action_epsilon)
    assert end.flatten().tolist() == pytest.approx([0.105961, 0.320392], abs=1e-6)


@pytest.mark.parametrize(
    ("n_steps", "expected"), [(5, [-0.349936, 0.750129]), (20, [0.106037, 0.320304]), (30, [0.371079, 0.234924])]
)
def test_actions_climb_as_those_of_the_comparison(n_steps: int, expected: list[float]) -> None:
    start = th.tensor([[-0.5], [0.9]])
    end = climb(towards, start, n_steps=n_steps, learning_rate=0.03, largest_norm=0.16, epsilon=1e-8)
    assert end.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_constant_gradient_moves_every_coordinate_alike() -> None:
    """(1, 1, -5) at (0.05, 0.2, 0): 30 steps lead to (0.95, 1, -0.9)."""
    slope, start = th.tensor([[1.0, 1.0, -5.0]]), th.tensor([[0.05, 0.2, 0.0]])
    end = climb(lambda actions: slope, start, n_steps=30, learning_rate=0.03, largest_norm=0.16, epsilon=1e-8)
    assert end[0].tolist() == pytest.approx([0.95, 1.0, -0.9], abs=1e-5)


def test_actions_stay_in_the_box_on_their_way() -> None:
    """Where the gradient turns at the border, no action has been beyond it."""
    seen = []

    def gradient(actions: th.Tensor) -> th.Tensor:
        seen.append(actions)
        return th.where(actions > 0.99, -1.0, 1.0)

    climb(gradient, th.zeros(1, 1), n_steps=60, learning_rate=0.1, largest_norm=1.0, epsilon=1e-5)
    assert max(actions.item() for actions in seen) == 1.0


def test_climbing_is_that_of_pytorchs_adam(model: Any) -> None:
    features, start = th.randn(5, 3), 0.9 * th.randn(5, 1).clamp(-1, 1)
    actions = start.clone().requires_grad_()
    optimizer = th.optim.Adam([actions], lr=0.03, eps=1e-5)
    for _ in range(7):
        optimizer.zero_grad()
        (-model.critic.q_values(features, actions).min(dim=0).values).sum().backward()
        th.nn.utils.clip_grad_norm_([actions], 0.1)
        optimizer.step()
        actions.data.clamp_(-1, 1)

    look = model.critic.lowest_value_and_gradient(features)
    end = climb(lambda actions: look(actions)[1], start, n_steps=7, learning_rate=0.03, largest_norm=0.1, epsilon=1e-5)
    assert th.allclose(end, actions.detach(), atol=1e-6)


def test_the_denoising_loss_is_the_authors(model: Any) -> None:
    """Predicted (0.5, -1), e = (0, 1): 2.125."""
    model.policy.denoiser.given = lambda features: lambda x, t: th.tensor([[0.5, -1.0]])
    zeros, noise = th.zeros(1, 2), th.tensor([[0.0, 1.0]])
    loss = model._weighted_denoising_loss(th.zeros(1, 3), zeros, th.zeros(1, dtype=th.long), noise, th.ones(1))
    assert loss.item() == pytest.approx(2.125)


def test_number_of_parameters_is_that_of_the_authors_networks() -> None:
    sizes = parameters_on_humanoid(DIPO)
    assert (sizes["critic"], sum(sizes.values())) == (465_410, 727_091)


def test_the_loss_is_the_one_written_out(model: Any) -> None:
    model.learn(30)
    model._n_updates = 1
    batch = model._sample(8)
    before, denoiser = model._improved.clone(), model.policy.denoiser
    th.manual_seed(2)
    (loss,) = model._after_td_step(batch, th.zeros(2, 8, 1), batch.actions)
    better = model._improved
    gained = [model.critic(batch.actor_observations, actions).amin(0) for actions in (before, better)]
    assert (gained[1] >= gained[0]).all()  # an action at the bound cannot move
    assert (gained[1] > gained[0]).any()

    th.manual_seed(2)
    t, e = th.randint(4, (8,)), th.randn(8, 1)
    alpha_bar = cosine_schedule(4)[t, None].float()
    noisy = alpha_bar.sqrt() * better + (1 - alpha_bar).sqrt() * e
    embedding = denoiser.time_network[2](F.mish(denoiser.time_network[0](positional_codes(4, 32)[t])))
    hidden = F.mish(denoiser.network[0](th.cat([batch.actor_observations, noisy, embedding], dim=1)))
    expected = (denoiser.network[2](hidden) - e).square().mean()
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (loss.optimizer, networks_reached(model, loss.value)) == ("actor", {"denoiser"})


def test_better_actions_are_stored_where_they_came_from(model: Any) -> None:
    model.learn(20)
    buffer = model.replay_buffer
    assert np.array_equal(buffer.improved_actions[:20], buffer.actions[:20])
    model.train(1, 8)
    rows = np.unique(model._where[0])
    moved = np.flatnonzero((buffer.improved_actions != buffer.actions).any(axis=(1, 2)))
    assert np.array_equal(moved, rows)
    assert np.array_equal(buffer.improved_actions[model._where], model._improved.numpy())
    # Three steps of Adam with a rate of 0.03
    assert np.abs(buffer.improved_actions - buffer.actions).max() <= 0.091


def test_a_td_step_gone_wrong_leaves_stored_actions_alone(model: Any) -> None:
    model.learn(40)
    before = model.replay_buffer.improved_actions.copy()
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(ValueError, match="critic_loss"):
        model.train(2, 8)
    assert np.array_equal(model.replay_buffer.improved_actions, before)


def test_the_td_target_looks_at_an_action_of_the_average(model: Any) -> None:
    model.policy.sample = lambda denoiser, features: denoiser
    assert model._next_actions(random_batch(model)) is model.policy.denoiser_target


def test_the_average_may_follow_less_often() -> None:
    """Every second update, the first one included; the critics' at each."""
    model = DIPO("MlpPolicy", "Pendulum-v1", actor_target_interval=2, **TINY | SMALL | dict(learning_starts=1_000))
    names = ["denoiser.network.0.weight", "critic_target.layers.0.weight", "denoiser_target.network.0.weight"]
    assert what_changes(model.learn(30), names, 4) == [[True, True, due] for due in (True, False) * 2]


def test_buffers_of_several_environments_and_kinds_have_second_actions() -> None:
    model: Any = DIPO("MlpPolicy", make_vec_env("Pendulum-v1", 2), **TINY | SMALL).learn(60)
    assert type(model.replay_buffer) is ImprovedReplayBuffer
    kept = model.replay_buffer.improved_actions[:30].copy()
    rearranged = with_n_envs(model.replay_buffer, 3)
    assert np.array_equal(rearranged.improved_actions[:20].reshape(60, 1), kept.reshape(60, 1))  # type: ignore[attr-defined]

    n_step: Any = DIPO("MlpPolicy", "Pendulum-v1", n_steps=3, **TINY | SMALL).learn(40)
    assert type(n_step.replay_buffer) is ImprovedNStepReplayBuffer
    assert (n_step.replay_buffer.improved_actions != n_step.replay_buffer.actions).any()


def test_dictionaries_and_buffers_that_store_observations_once() -> None:
    env = gym.wrappers.FilterObservation(
        gym.wrappers.TransformObservation(
            gym.make("Pendulum-v1"),
            lambda obs: {"state": obs, "other": obs[:1]},
            gym.spaces.Dict(state=gym.spaces.Box(-8, 8, (3,)), other=gym.spaces.Box(-1, 1, (1,))),
        ),
        ["state", "other"],
    )
    of_dict: Any = DIPO("MultiInputPolicy", env, **TINY | SMALL).learn(40)
    assert type(of_dict.replay_buffer) is ImprovedDictReplayBuffer

    once: Any = DIPO("MlpPolicy", "Pendulum-v1", optimize_memory_usage=True, **TINY | SMALL | dict(buffer_size=25))
    once.learn(40)
    where = once.replay_buffer.sample_improved(1_000).where[0]
    assert set(where) == set(range(25)) - {once.replay_buffer.pos}


@pytest.mark.parametrize("name", ["n_action_gradient_steps", "action_learning_rate", "action_grad_norm"])
def test_values_out_of_range_are_refused(name: str) -> None:
    kwargs: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0"):
        DIPO("MlpPolicy", "Pendulum-v1", **TINY | kwargs)


def test_a_replay_buffer_without_second_actions_is_refused_and_the_own_one_kept(tmp_path: Path) -> None:
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=50).learn(20).save_replay_buffer(tmp_path / "buffer")
    model = DIPO("MlpPolicy", "Pendulum-v1", buffer_size=50, policy_kwargs=dict(net_arch=[4]))
    own = model.replay_buffer
    with pytest.raises(ValueError, match="replay_buffer_class=ReplayBuffer keeps no second action"):
        model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is own
