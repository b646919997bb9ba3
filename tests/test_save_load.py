"""Saving and loading of models, policies, parameters and replay buffers."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_lql import LQL, NCLQL
from sb3_lql.common.buffers import Float32NStepReplayBuffer


def trained(algorithm: Any, tiny: dict[str, Any], **kwargs: Any) -> Any:
    """
    A model after a few updates, so that online, target and optimizer state all differ from a fresh one's.

    Its steps are short and as long as the score: the chain ends inside the box, where equal actions mean equal critics.
    """
    gentle = dict(normalize_score=False, inverse_temperature=0.3 if algorithm is NCLQL else 300.0)
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, **(tiny | gentle | kwargs))
    return model.learn(60)


def observations(model: Any, n: int = 5) -> np.ndarray:
    model.observation_space.seed(0)
    return np.stack([model.observation_space.sample() for _ in range(n)])


def same_state(a: Any, b: Any) -> bool:
    """Whether two state dicts, nested or not, hold equal tensors and values."""
    if isinstance(a, th.Tensor):
        return th.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_state, a, b))
    return bool(a == b)


def reloaded(model: Any, **kwargs: Any) -> Any:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return type(model).load(file, device="cpu", **kwargs)


@pytest.mark.parametrize("kind", ["str", "pathlib", "bytes"])
def test_a_loaded_model_predicts_what_was_saved(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    model = trained(algorithm, tiny)
    obs = observations(model)
    before, _ = model.predict(obs, deterministic=True)
    file: Any = {"str": str(tmp_path / "model"), "pathlib": tmp_path / "model.zip", "bytes": io.BytesIO()}[kind]
    model.save(file)
    if kind == "bytes":
        file.seek(0)
    loaded = algorithm.load(file, device="cpu")
    after, _ = loaded.predict(obs, deterministic=True)
    np.testing.assert_array_equal(after, before)
    assert (np.abs(before) < model.action_space.high).all()
    assert len(np.unique(before)) == len(obs)


def test_critics_targets_and_optimizer_state_are_restored(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny)
    loaded = reloaded(model)
    for part in ("critic", "critic_target", "policy.optimizer"):
        saved_state, loaded_state = (
            (m.policy.optimizer if part == "policy.optimizer" else getattr(m, part)).state_dict()
            for m in (model, loaded)
        )
        assert same_state(saved_state, loaded_state), part
    assert loaded.policy.optimizer.state_dict()["state"]
    assert not same_state(loaded.critic.state_dict(), loaded.critic_target.state_dict())
    assert loaded._n_updates == model._n_updates == 10


SAMPLER_SETTINGS: dict[str, Any] = dict(
    inverse_temperature=30.0, normalize_score=False, n_action_samples=3, langevin_step_size=1e-3, n_langevin_steps=3
)


def test_sampler_settings_are_restored(algorithm: Any, tiny: dict[str, Any]) -> None:
    extra = dict(n_noise_levels=4, sigma_max=0.5, sigma_min=0.05) if algorithm is NCLQL else {}
    model = trained(algorithm, tiny, **SAMPLER_SETTINGS, **extra)
    loaded = reloaded(model)
    sampler = loaded.policy.sampler
    assert th.equal(sampler.sigmas, model.policy.sampler.sigmas)
    assert th.equal(sampler.step_sizes, model.policy.sampler.step_sizes)
    assert (sampler.inverse_temperature, sampler.normalize_score, sampler.n_steps) == (30.0, False, 3)
    assert loaded.policy.n_action_samples == 3
    assert {name: getattr(loaded, name) for name in SAMPLER_SETTINGS | extra} == SAMPLER_SETTINGS | extra


def test_a_pair_of_step_sizes_is_restored(tiny: dict[str, Any]) -> None:
    loaded = reloaded(trained(LQL, tiny, langevin_step_size=(1.0, 1e-4), n_langevin_steps=3))
    assert loaded.policy.sampler.step_sizes.tolist() == pytest.approx([1.0, 1e-2, 1e-4])


def test_a_temperature_changed_after_construction_is_restored(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny)
    model.inverse_temperature = 7.0
    assert reloaded(model).policy.sampler.inverse_temperature == 7.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("inverse_temperature", 3.0), ("normalize_score", False), ("n_langevin_steps", 5), ("n_action_samples", 2)],
)
def test_load_overrides_sampler_settings(algorithm: Any, tiny: dict[str, Any], name: str, value: Any) -> None:
    loaded = reloaded(trained(algorithm, tiny), **{name: value})
    owner, attribute = {
        "n_langevin_steps": (loaded.policy.sampler, "n_steps"),
        "n_action_samples": (loaded.policy, "n_action_samples"),
    }.get(name, (loaded.policy.sampler, name))
    assert getattr(owner, attribute) == getattr(loaded, name) == value


@pytest.mark.parametrize(
    ("name", "value"), [("inverse_temperature", -1.0), ("langevin_step_size", float("nan")), ("n_action_samples", 0)]
)
def test_load_refuses_a_bad_override(algorithm: Any, tiny: dict[str, Any], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        reloaded(trained(algorithm, tiny), **{name: value})


def test_the_replay_buffer_is_saved_and_loaded(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = trained(algorithm, tiny)
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = reloaded(model)
    assert loaded.replay_buffer.size() == 0
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == 60
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(loaded.replay_buffer, name), getattr(model.replay_buffer, name))


@pytest.mark.parametrize("method", ["save", "save_replay_buffer", "save_safe"])
def test_saving_to_a_link_writes_its_target_and_keeps_its_permissions(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, method: str
) -> None:
    target, link = tmp_path / "target", tmp_path / "latest.file"
    target.write_bytes(b"")
    target.chmod(0o660)
    link.symlink_to("target")
    getattr(algorithm("MlpPolicy", "Pendulum-v1", **tiny), method)(link)
    assert link.is_symlink()
    assert target.stat().st_size > 0
    assert target.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    ("buffer_kwargs", "model_kwargs", "message"),
    [
        ({}, dict(n_steps=3), "n_steps=1, the model's own 3"),
        (dict(n_steps=3), {}, "n_steps=3, the model's own 1"),
        (dict(n_steps=3), dict(n_steps=3, gamma=0.5), "gamma=0.99, the model's own 0.5"),
    ],
)
def test_a_replay_buffer_of_other_returns_is_refused(
    tiny: dict[str, Any], tmp_path: Path, buffer_kwargs: Any, model_kwargs: Any, message: str
) -> None:
    NCLQL("MlpPolicy", "Pendulum-v1", **tiny, **buffer_kwargs).save_replay_buffer(tmp_path / "buffer")
    model = NCLQL("MlpPolicy", "Pendulum-v1", **tiny, **model_kwargs)
    own = model.replay_buffer
    with pytest.raises(ValueError, match=f"The replay buffer has {message}"):
        model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is own


def test_a_replay_buffer_of_sac_is_loaded_whatever_its_size(tiny: dict[str, Any], tmp_path: Path) -> None:
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=300, n_steps=3).learn(10).save_replay_buffer(tmp_path / "buffer")
    model = NCLQL("MlpPolicy", "Pendulum-v1", n_steps=3, **tiny)
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is not None
    assert (model.replay_buffer.buffer_size, model.replay_buffer.pos) == (300, 10)


def test_a_model_can_be_loaded_for_another_number_of_envs(algorithm: Any, tiny: dict[str, Any]) -> None:
    loaded = reloaded(trained(algorithm, tiny), env=make_vec_env("Pendulum-v1", n_envs=2))
    loaded.learn(60)
    assert loaded.n_envs == loaded.replay_buffer.n_envs == 2
    assert loaded._n_updates > 10


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_load_may_change_the_steps_of_returns(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, before: int, after: int
) -> None:
    algorithm("MlpPolicy", "Pendulum-v1", n_steps=before, **tiny).save(tmp_path / "model")
    model = algorithm.load(tmp_path / "model", "Pendulum-v1", n_steps=after, gamma=0.5)
    buffer = model.learn(1).replay_buffer
    assert (getattr(buffer, "n_steps", 1), getattr(buffer, "gamma", 0.5)) == (after, 0.5)


def test_a_replay_buffer_of_the_users_choice_is_taken_as_it_is(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    kwargs = dict(n_steps=4, gamma=0.9)
    chosen: dict[str, Any] = dict(replay_buffer_class=Float32NStepReplayBuffer, replay_buffer_kwargs=kwargs)
    algorithm("MlpPolicy", "Pendulum-v1", **tiny, **chosen).save(tmp_path / "model")
    buffer = algorithm.load(tmp_path / "model", "Pendulum-v1").replay_buffer
    assert (type(buffer), buffer.n_steps, buffer.gamma) == (Float32NStepReplayBuffer, 4, 0.9)
    with pytest.raises(TypeError, match="n_steps"):
        algorithm("MlpPolicy", "Pendulum-v1", replay_buffer_kwargs=kwargs, **tiny)


def test_an_environment_may_be_named_by_its_id(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.save(tmp_path / "model")
    model.save_safe(tmp_path / "model")
    loaded = [algorithm.load(tmp_path / "model", "Pendulum-v1"), algorithm.load_safe(tmp_path / "model", "Pendulum-v1")]
    loaded[0].set_env("Pendulum-v1")
    assert [other.learn(1).get_env().num_envs for other in loaded] == [1, 1]


def test_save_excludes_and_includes_what_it_is_told(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = trained(algorithm, tiny)
    model.save(tmp_path / "model", exclude=["tau"], include=["replay_buffer"])
    loaded = algorithm.load(tmp_path / "model", device="cpu", tau=0.5)
    assert loaded.tau == 0.5
    assert loaded.replay_buffer.size() == 60


def test_parameters_travel_between_models(algorithm: Any, tiny: dict[str, Any]) -> None:
    source = trained(algorithm, tiny)
    target = algorithm("MlpPolicy", "Pendulum-v1", seed=1, **tiny)
    parameters = source.get_parameters()
    assert parameters.keys() == {"policy", "policy.optimizer"}
    target.set_parameters(parameters, exact_match=True)
    assert same_state(target.get_parameters(), parameters)


def test_exact_match_wants_every_part_and_nothing_else(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    parameters = trained(algorithm, tiny).get_parameters()
    only_policy = dict(policy=parameters["policy"])
    with pytest.raises(ValueError, match="do not match"):
        model.set_parameters(only_policy, exact_match=True)
    with pytest.raises(ValueError, match="no_such_part"):
        model.set_parameters(dict(no_such_part=parameters["policy"]), exact_match=False)
    one_weight = dict(list(parameters["policy"].items())[:1])
    model.set_parameters(dict(policy=one_weight), exact_match=False)
    name, value = next(iter(one_weight.items()))
    assert th.equal(model.policy.state_dict()[name], value)


def test_policy_kwargs_stay_what_the_user_wrote(algorithm: Any, tiny: dict[str, Any]) -> None:
    policy_kwargs = dict(net_arch=[16], n_critics=3)
    model = trained(algorithm, tiny, policy_kwargs=policy_kwargs)
    assert policy_kwargs == dict(net_arch=[16], n_critics=3)
    assert model.policy_kwargs == reloaded(model).policy_kwargs == policy_kwargs
    assert reloaded(model, policy_kwargs=dict(net_arch=[16], n_critics=3)).policy.n_critics == 3


def test_a_policy_saved_alone_acts_the_same(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = trained(algorithm, tiny, n_action_samples=2)
    obs = observations(model)
    model.policy.save(tmp_path / "policy.pth")
    policy = type(model.policy).load(tmp_path / "policy.pth", device="cpu")
    expected, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_copied_policy_acts_the_same_and_is_independent(algorithm: Any, tiny: dict[str, Any], duplicate: Any) -> None:
    model = trained(algorithm, tiny)
    obs = observations(model)
    expected, _ = model.predict(obs, deterministic=True)
    policy = duplicate(model.policy)
    model.train(gradient_steps=5, batch_size=8)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], expected)
    assert not same_state(policy.critic.state_dict(), model.critic.state_dict())


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [(th.optim.SGD, dict(momentum=0.9)), (th.optim.AdamW, dict(weight_decay=0.1)), (th.optim.RMSprop, dict(alpha=0.9))],
)
def test_a_custom_optimizer_and_its_state_survive(
    algorithm: Any, tiny: dict[str, Any], optimizer_class: Any, optimizer_kwargs: dict[str, float]
) -> None:
    policy_kwargs = dict(net_arch=[16], optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs)
    model = trained(algorithm, tiny, policy_kwargs=policy_kwargs)
    optimizer = reloaded(model).policy.optimizer
    assert type(optimizer) is optimizer_class
    name, value = next(iter(optimizer_kwargs.items()))
    assert optimizer.param_groups[0][name] == value
    assert same_state(optimizer.state_dict(), model.policy.optimizer.state_dict())


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_a_loaded_model_goes_on_learning(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, reset_num_timesteps: bool
) -> None:
    model = trained(algorithm, tiny)
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = reloaded(model, env=make_vec_env("Pendulum-v1"))
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(5, reset_num_timesteps=reset_num_timesteps)
    assert loaded.num_timesteps == (5 if reset_num_timesteps else 65)
    assert loaded._n_updates == 15
