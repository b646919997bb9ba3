"""A trained model that goes on learning: no second random warm-up, no update without transitions."""

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env


def trained(algorithm: Any, tiny: dict[str, Any], **kwargs: Any) -> Any:
    """Sixty steps, of which ten updates."""
    return algorithm("MlpPolicy", make_vec_env("Pendulum-v1"), **(tiny | kwargs)).learn(60)


def forbid_random_actions(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*_: Any) -> None:
        raise AssertionError("a random action was taken")

    monkeypatch.setattr(model.action_space, "sample", sample)


def reloaded(model: Any, folder: Path, **kwargs: Any) -> Any:
    """The saved model without its replay buffer."""
    model.save(folder / "model")
    return type(model).load(folder / "model", env=model.env, device="cpu", **kwargs)


def test_a_fresh_model_does_act_randomly(algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    forbid_random_actions(model, monkeypatch)
    with pytest.raises(AssertionError, match="random action"):
        model.learn(1)


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_updates_go_on_at_once_with_a_filled_buffer(
    algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, reset_num_timesteps: bool
) -> None:
    model = trained(algorithm, tiny)
    forbid_random_actions(model, monkeypatch)
    model.learn(5, reset_num_timesteps=reset_num_timesteps)
    assert model._n_updates == 15


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_updates_wait_for_an_empty_buffer_to_fill(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reset_num_timesteps: bool
) -> None:
    model = reloaded(trained(algorithm, tiny), tmp_path)
    forbid_random_actions(model, monkeypatch)
    model.learn(tiny["learning_starts"], reset_num_timesteps=reset_num_timesteps)
    assert model._n_updates == 10
    model.learn(4, reset_num_timesteps=False)
    assert model._n_updates == 14


def test_a_half_filled_buffer_waits_for_the_missing_half(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = reloaded(trained(algorithm, tiny), tmp_path, learning_starts=50)
    model.learn(20)  # too few for an update
    assert model._n_updates == 10
    model.learn(33)  # 30 are missing
    assert model._n_updates == 13


def test_transitions_of_several_envs_count(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = trained(algorithm, tiny)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", n_envs=2), device="cpu")
    loaded.learn(30)
    assert loaded._n_updates == 10
    loaded.learn(24)  # 20 are missing: updates after 22 and 24
    assert loaded._n_updates == 12


def test_a_full_buffer_smaller_than_the_warm_up_is_not_waited_for(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny, buffer_size=30)
    model.learn(5)
    assert model._n_updates == 15


@pytest.mark.parametrize("keep_buffer", [True, False])
@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_learning_starts_is_what_the_user_set_afterwards(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, keep_buffer: bool, reset_num_timesteps: bool
) -> None:
    model = trained(algorithm, tiny)
    if not keep_buffer:
        model = reloaded(model, tmp_path)
    model.learn(3, reset_num_timesteps=reset_num_timesteps)
    assert model.learning_starts == tiny["learning_starts"]


def test_learning_starts_survives_an_interruption(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = trained(algorithm, tiny)

    def interrupt(*_: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(3, callback=interrupt)
    assert model.learning_starts == tiny["learning_starts"]


def test_a_model_with_no_updates_yet_warms_up(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(20)
    model.learn(40)
    assert model._n_updates == 0
    model.learn(15, reset_num_timesteps=False)
    assert model._n_updates == 5


def test_a_resumed_model_says_so_in_one_line(
    algorithm: Any, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(algorithm, tiny, verbose=1)
    assert "Continuing" not in capsys.readouterr().out
    model.learn(1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Continuing" in line]
    assert len(lines) == 1
    assert "10 updates" in lines[0]
    model.verbose = 0
    model.learn(1)
    assert "Continuing" not in capsys.readouterr().out
