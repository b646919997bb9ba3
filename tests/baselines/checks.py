"""What the tests of all baselines need, and what must hold of each."""

import inspect
from pathlib import Path
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import ReplayBufferSamples

#: Constructor arguments of a model that is fast to build and to train.
TINY: dict[str, Any] = dict(
    policy_kwargs=dict(net_arch=[16]), buffer_size=500, learning_starts=20, batch_size=8, seed=0, device="cpu"
)


def random_batch(model: Any, n: int = 8) -> ReplayBufferSamples:
    """A minibatch of such a model; a fifth of its transitions are terminal."""
    th.manual_seed(1)
    actions, obs = model.policy.action_dim, model.observation_space.shape[0]
    dones = (th.rand(n, 1) < 0.2).float()
    return ReplayBufferSamples(
        th.randn(n, obs), 2 * th.rand(n, actions) - 1, th.randn(n, obs), dones, th.randn(n, 1), None
    )


def networks_reached(model: Any, loss: th.Tensor) -> set[str]:
    """The parts of the policy that get a gradient from a loss."""
    model.policy.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name.split(".")[0] for name, p in model.policy.named_parameters() if p.grad is not None}


def what_changes(model: Any, names: list[str], n_updates: int) -> list[list[bool]]:
    """Whether tensors of the policy change at each of the next updates."""
    changes = []
    for _ in range(n_updates):
        before = {name: model.policy.state_dict()[name].clone() for name in names}
        model.train(1, 8)
        changes.append([not th.equal(before[name], model.policy.state_dict()[name]) for name in names])
    return changes


def assert_saved(model: Any, folder: Path) -> None:
    """That a zip and a safe file hold all that was learned."""
    model.save(folder / "model.zip")
    model.save_safe(folder / "model.safetensors")
    obs = model.observation_space.sample()
    for loaded in (
        type(model).load(folder / "model.zip", device="cpu"),
        type(model).load_safe(folder / "model.safetensors", device="cpu"),
    ):
        for name, value in model.policy.state_dict().items():
            assert th.equal(value, loaded.policy.state_dict()[name]), name
        for name, optimizer in model.policy.optimizers.items():
            assert len(optimizer.state) == len(loaded.policy.optimizers[name].state) > 0
        assert (model.predict(obs, deterministic=True)[0] == loaded.predict(obs, deterministic=True)[0]).all()


def resumed_beside(model: Any, path: Path) -> Any:
    """The model as resumed from a checkpoint, both after five more updates: on a GPU the last two are replays."""
    model.save_checkpoint(path)
    model.train(5, 8)
    resumed = type(model).load_checkpoint(path, env="Pendulum-v1", device=model.device)
    resumed.train(5, 8)
    return resumed


def assert_resumes(model: Any, path: Path) -> None:
    """That a checkpoint continues bit for bit."""
    resumed = resumed_beside(model, path)
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, resumed.policy.state_dict()[name]), name


def assert_replays(algorithm: Any, recordings: list[Any], **changes: Any) -> None:
    """That an update as a CUDA graph records it is the plain one bit for bit, which waits for nothing either."""
    # Rates that are the same number in float32, as which a recording holds them
    names = [name for name in inspect.signature(algorithm).parameters if name.endswith("learning_rate")]
    rates = dict.fromkeys(names, 2**-7)
    plain = algorithm("MlpPolicy", "Pendulum-v1", compile=False, **TINY | rates | changes).learn(30)
    assert not recordings
    replayed = algorithm("MlpPolicy", "Pendulum-v1", **TINY | rates | changes).learn(30)
    assert recordings
    for name, value in plain.policy.state_dict().items():
        assert th.equal(value, replayed.policy.state_dict()[name]), name


def parameters_on_humanoid(algorithm: Any) -> dict[str, int]:
    """The sizes of the networks on Humanoid-v4, with 376 observations and 17 actions."""
    model = algorithm("MlpPolicy", None, device="cpu", _init_setup_model=False)
    model.observation_space, model.action_space = spaces.Box(-1, 1, (376,)), spaces.Box(-1, 1, (17,))
    model._setup_lr_schedule()
    policy = model.policy_class(
        model.observation_space, model.action_space, model.lr_schedule, **model.policy_arguments()
    )
    return {name: sum(p.numel() for p in getattr(policy, name).parameters()) for name in ("critic", "denoiser")}
