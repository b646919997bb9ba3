"""QVPO: numbers of the authors' code, the loss written out, and which losses reach which networks."""

from typing import Any

import pytest
import torch as th
from torch.nn import functional as F

from sb3_lql.baselines import QVPO
from sb3_lql.diffusion.family import ActorBatch
from sb3_lql.diffusion.process import cosine_schedule
from sb3_lql.networks.layers import positional_codes
from tests.baselines.checks import (
    TINY,
    parameters_on_humanoid,
    random_batch,
    what_changes,
)

#: Few actions, so that it is fast.
SMALL: dict[str, Any] = dict(n_denoising_steps=4, n_policy_samples=4, n_behavior_samples=2, n_action_samples=3)


@pytest.fixture
def model() -> Any:
    return QVPO("MlpPolicy", "Pendulum-v1", **TINY | SMALL)


def test_weights_are_the_authors(model: Any) -> None:
    """q = (1, 2, 6, 3): 3 for the best action, 0.06 for each random one."""
    actions = th.tensor([[0.1], [0.2], [0.6], [0.3]])
    model.policy.sample = lambda denoiser, features: actions
    model.critic.q_values = lambda features, actions: th.tensor([1.0, 2.0, 6.0, 3.0]).view(1, 4, 1).expand(2, -1, -1)
    targets, weights = model._targets(th.zeros(1, 3))
    assert targets[0].item() == pytest.approx(0.6)
    assert weights.tolist() == pytest.approx([3.0] + [0.06] * 10)
    assert targets.shape == (11, 1)
    assert targets[1:].abs().max() <= 1
    assert len(targets[1:].unique()) == 10


def test_the_weighted_loss_is_the_authors(model: Any) -> None:
    """w = (3, 1), squared errors of 4, and 1 for random actions: 0.763636."""
    model.policy.denoiser.given = lambda features: lambda x, t: th.tensor([2.0] * 2 + [1.0] * 20)[:, None]
    weights = th.cat([th.tensor([3.0, 1.0]), th.tensor([0.06, 0.02]).repeat(10)])
    zeros = th.zeros(22, 1)
    loss = model._weighted_denoising_loss(th.zeros(22, 3), zeros, th.zeros(22, dtype=th.long), zeros, weights)
    assert loss.item() == pytest.approx(0.763636, rel=1e-5)


def test_the_weight_of_random_actions_falls_with_the_steps(model: Any) -> None:
    found = []
    assert model.policy.uniform_weight == pytest.approx(0.02)
    for steps in (1, 250_000, 900_000, 950_000, 2_000_000):
        model.num_timesteps = steps
        model._between_updates()
        found.append(model.policy.uniform_weight.item())
    assert found == pytest.approx([0.02, 0.015, 0.002, 0.002, 0.002], rel=1e-5)


def test_codes_of_times_are_the_authors() -> None:
    code = positional_codes(20, 32)[7, [0, 1, 15, 16, 31]]
    assert code.tolist() == pytest.approx([0.656987, -0.602471, 0.0007, 0.753902, 1.0], abs=1e-6)


def test_number_of_parameters_is_that_of_the_authors_networks() -> None:
    sizes = parameters_on_humanoid(QVPO)
    assert (sizes["critic"], sum(sizes.values())) == (465_410, 727_091)


def test_weights_start_as_the_authors() -> None:
    """N(0, 1 / (4 in)) for every layer, not truncated; Adam with 1e-5."""
    th.manual_seed(0)
    policy: Any = QVPO("MlpPolicy", "Pendulum-v1", device="cpu").policy
    for layer in (policy.critic.layers[1], policy.denoiser.network[2]):
        assert layer.weight.std().item() == pytest.approx(0.5 / 16, rel=0.02)
        assert layer.weight.abs().max() > 3 * 0.5 / 16
        assert not layer.bias.any()
    assert policy.denoiser.time_network[0].weight.std().item() == pytest.approx(0.5 / 32**0.5, rel=0.05)
    assert th.equal(policy.critic.layers[0].weight, policy.critic_target.layers[0].weight)
    assert {group["eps"] for optimizer in policy.optimizers.values() for group in optimizer.param_groups} == {1e-5}


def test_the_loss_is_the_one_written_out(model: Any) -> None:
    model._n_updates = 1
    obs = th.linspace(-1, 1, 24).view(8, 3)
    batch = ActorBatch(random_batch(model), actor_observations=obs)
    th.manual_seed(2)
    (loss,) = model._after_td_step(batch, th.zeros(2, 8, 1), batch.actions)

    th.manual_seed(2)
    denoiser, process = model.policy.denoiser, model.policy.process
    rows = obs.repeat_interleave(4, dim=0)
    x, z = th.randn(32, 1), th.randn(3, 32, 1)
    with th.no_grad():
        actions = process(lambda x, t: denoiser(rows, x, t), x, z).view(8, 4)
        q_values = model.critic(rows, actions.view(32, 1)).amin(dim=0).view(8, 4)
    best = actions.gather(1, q_values.argmax(dim=1, keepdim=True))
    targets = th.cat([best, 2 * th.rand(80, 1) - 1])
    t, e = th.randint(4, (88,)), th.randn(88, 1)
    alpha_bar = cosine_schedule(4)[t, None].float()
    noisy = alpha_bar.sqrt() * targets + (1 - alpha_bar).sqrt() * e
    embedding = denoiser.time_network[2](F.mish(denoiser.time_network[0](positional_codes(4, 32)[t])))
    hidden = F.mish(denoiser.network[0](th.cat([obs.repeat(11, 1), noisy, embedding], dim=1)))
    errors = (denoiser.network[2](hidden) - e).square()[:, 0]
    w = q_values.max(dim=1).values - q_values.mean(dim=1)
    expected = ((w * errors[:8]).sum() + 0.02 * (w.repeat(10) * errors[8:]).sum()) / 88
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_td_target_takes_the_targets_best_of_the_averages_actions(model: Any) -> None:
    asked = []
    actions = th.linspace(-1, 1, 16)[:, None]

    def sample(denoiser: Any, features: th.Tensor) -> th.Tensor:
        asked.append(denoiser)
        return actions

    model.policy.sample = sample
    model.critic_target.q_values = lambda features, actions: -actions.expand(2, -1, -1)
    found = model._next_actions(random_batch(model))
    assert asked == [model.policy.denoiser_target]
    assert th.equal(found, actions[::2])


def test_the_denoiser_learns_from_a_minibatch_of_its_own(model: Any) -> None:
    model.learn(30)
    batch = model._sample(8)
    assert batch.actor_observations.shape == batch.observations.shape
    assert not th.equal(batch.actor_observations, batch.observations)


@pytest.mark.parametrize(("delay", "expected"), [(1, [True] * 4), (2, [True, False] * 2)])
def test_the_denoiser_learns_at_every_update_unless_it_is_delayed(delay: int, expected: list[bool]) -> None:
    model = QVPO("MlpPolicy", "Pendulum-v1", policy_delay=delay, **TINY | SMALL | dict(learning_starts=1_000)).learn(30)
    names = ["denoiser.network.0.weight", "critic.layers.0.weight", "denoiser_target.network.0.weight"]
    assert what_changes(model, names, 4) == [[due, True, True] for due in expected]


def test_targets_follow_by_tau_at_every_update(model: Any) -> None:
    """From 0 to 1 after 1,000: 0.993346."""
    pairs = [(model.policy.critic, model.policy.critic_target), (model.policy.denoiser, model.policy.denoiser_target)]
    for network, target in pairs:
        for parameter, follower in zip(network.parameters(), target.parameters(), strict=True):
            parameter.data.fill_(1.0)
            follower.data.fill_(0.0)
    assert model.target_update_interval == 1
    for _ in range(1_000):
        model._update_targets()
    for _, target in pairs:
        assert next(target.parameters()).mean().item() == pytest.approx(0.993346, abs=1e-5)


def test_gradients_are_no_longer_than_the_limit() -> None:
    """That of all critics together, and that of the denoiser."""
    model: Any = QVPO("MlpPolicy", "Pendulum-v1", max_grad_norm=1e-3, **TINY | SMALL | dict(reward_scale=100.0))
    model.learn(40)
    for optimizer in model.policy.optimizers.values():
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        assert th.nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=2e-3)
    model.max_grad_norm = None
    model.train(1, 8)
    gradients = [p.grad for p in model.critic.parameters()]
    assert th.nn.utils.get_total_norm(gradients).item() > 1e-2


def test_learning_rates_stay(model: Any) -> None:
    for updates in (1, 50_000, 1_000_000):
        model._n_updates = updates
        assert model._learning_rates() == {"critic": 3e-4, "actor": 1e-4}


def test_actions_that_are_stored_are_the_best_of_fewer(model: Any) -> None:
    drawn = []
    plain_draw = model.policy.draw

    def draw(features: th.Tensor) -> Any:
        drawn.append(len(features))
        return plain_draw(features)

    model.policy.draw = draw
    model.learn(20)
    model._last_obs = model.env.reset()
    model._sample_action(0)
    model.predict(model.env.reset())
    assert drawn == [2, 3]
    assert model.policy.n_action_samples == model.n_action_samples == 3


def test_time_limits_end_episodes_unless_told_otherwise(model: Any) -> None:
    assert not model.replay_buffer.handle_timeout_termination
    kwargs = dict(handle_timeout_termination=True)
    assert QVPO(
        "MlpPolicy", "Pendulum-v1", replay_buffer_kwargs=kwargs, **TINY
    ).replay_buffer.handle_timeout_termination


@pytest.mark.parametrize(
    "argument", ["n_behavior_samples", "n_policy_samples", "n_uniform_actions", "uniform_weight", "max_grad_norm"]
)
def test_bad_values_are_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=-1"):
        QVPO("MlpPolicy", "Pendulum-v1", **TINY | {argument: -1})
