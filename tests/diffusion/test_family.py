"""What the algorithms with a denoiser share: their minibatches, and the noise that they add or do not add."""

from typing import Any, NamedTuple

import pytest
import torch as th
from torch.utils import _pytree as pytree

from sb3_lql.baselines import DIPO, MVP, QSM, QVPO
from sb3_lql.baselines.compared import ComparedQSM, ComparedQVPO
from sb3_lql.common.buffers import ImprovedReplayBuffer
from sb3_lql.diffusion.family import ActorBatch
from tests.baselines.checks import TINY, random_batch


class WeightedSamples(NamedTuple):
    """SB3's minibatch, with one field more."""

    observations: th.Tensor
    actions: th.Tensor
    next_observations: th.Tensor
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None
    weights: th.Tensor


class WeightedReplayBuffer(ImprovedReplayBuffer):
    """A user's, whose minibatches hold more than SB3's do."""

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        samples = super().sample(*args, **kwargs)
        return WeightedSamples(*samples, weights=th.ones_like(samples.rewards))


def tiny(algorithm: Any, **kwargs: Any) -> Any:
    return algorithm("MlpPolicy", "Pendulum-v1", n_denoising_steps=2, **TINY | kwargs)


@pytest.mark.parametrize("algorithm", [DIPO, QVPO])
def test_minibatches_may_have_more_fields(algorithm: Any) -> None:
    model = tiny(algorithm, replay_buffer_class=WeightedReplayBuffer).learn(30)
    batch = model._sample(8)
    assert th.equal(batch.weights, th.ones(8, 1))
    assert batch.actor_observations.shape == (8, 3)


@pytest.mark.parametrize("algorithm", [DIPO, QVPO])
def test_a_buffer_of_more_fields_changes_no_number(algorithm: Any) -> None:
    plain, weighted = (
        tiny(algorithm, replay_buffer_class=buffer_class).learn(30).policy.state_dict()
        for buffer_class in (ImprovedReplayBuffer, WeightedReplayBuffer)
    )
    assert all(th.equal(value, weighted[name]) for name, value in plain.items())


def test_the_denoisers_observations_are_among_the_tensors_of_a_minibatch() -> None:
    """A recorded update copies these into place."""
    samples, own = random_batch(tiny(QVPO)), th.randn(8, 3)
    leaves, structure = pytree.tree_flatten(ActorBatch(samples, own))
    assert sum(leaf is own for leaf in leaves) == 1
    assert sum(leaf is samples.observations for leaf in leaves) == 1
    again: Any = pytree.tree_unflatten(leaves, structure)
    assert again.rewards is samples.rewards
    assert again.discounts is None
    assert again.actor_observations is own


def test_a_minibatch_has_no_fields_but_those() -> None:
    with pytest.raises(AttributeError, match="weights"):
        _ = ActorBatch(random_batch(tiny(QVPO)), th.zeros(8, 3)).weights


@pytest.mark.parametrize(
    ("algorithm", "kwargs"),
    [(MVP, {}), (QVPO, {}), (DIPO, {}), (ComparedQSM, {}), (ComparedQVPO, {}), (QSM, dict(noise_scale=0.0))],
)
def test_no_noise_is_drawn_where_there_is_none(algorithm: Any, kwargs: dict[str, float]) -> None:
    model, actions = tiny(algorithm, **kwargs), th.tensor([[0.5], [-0.5]])
    th.manual_seed(0)
    assert model._explore(actions) is actions
    drawn = th.rand(())
    th.manual_seed(0)
    assert drawn == th.rand(())
