"""What a model cannot learn from or be made with is refused by name, with the remedy."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_lql import LQL, NCLQL
from sb3_lql.baselines import DIPO, SDAC
from sb3_lql.langevin.policies import LangevinPolicy
from tests.test_spaces import AnySpaces, box

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
#: Observation spaces by what an error must say of them.
UNSUPPORTED: dict[str, spaces.Space[Any]] = {
    r"observation_space=Tuple.*'MultiInputPolicy'.*FlattenObservation": spaces.Tuple([VECTOR, spaces.Discrete(2)]),
    r"observation_space=Text.*of type Text.*TransformObservation": spaces.Text(4),
    r"observation_space=Graph.*of type Graph": spaces.Graph(VECTOR, None),
    r"observation_space=Sequence.*of type Sequence": spaces.Sequence(VECTOR),
    r"(?s)observation_space=MultiDiscrete.*has 2 axes.*FlattenObservation": spaces.MultiDiscrete(
        np.array([[2, 3], [4, 5]])
    ),
    r"observation_space=Box.*has shape \(\)": spaces.Box(-1.0, 1.0, ()),
    r"observation_space=Box.*has shape \(0,\)": spaces.Box(-1.0, 1.0, (0,)),
    r"observation_space=Dict\(\) is empty": spaces.Dict({}),
    r"observation_space\['a'\]=Tuple": spaces.Dict(a=spaces.Tuple([VECTOR])),
    r"observation_space\['a'\]=Dict.*a Dict within a Dict": spaces.Dict(a=spaces.Dict(b=VECTOR)),
    r"observation_space\['a'\]=Text": spaces.Dict(a=spaces.Text(4), b=VECTOR),
}


@pytest.mark.parametrize("pattern", UNSUPPORTED)
def test_observations_that_no_network_takes_are_refused_by_name(
    algorithm: Any, tiny: dict[str, Any], pattern: str
) -> None:
    space = UNSUPPORTED[pattern]
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    env = AnySpaces(box([-1.0], [1.0]))
    env.observation_space = space
    with pytest.raises(ValueError, match=pattern):
        algorithm(policy, env, **tiny)


@pytest.mark.parametrize(
    ("policy", "space", "pattern"),
    [
        ("MultiInputPolicy", VECTOR, "is no Dict.*pass 'MlpPolicy'"),
        ("CnnPolicy", VECTOR, "is no image.*pass 'MlpPolicy'"),
        (LangevinPolicy, spaces.Dict(a=VECTOR), "is a Dict: pass 'MultiInputPolicy'"),
    ],
)
def test_a_policy_for_other_observations_is_refused(
    algorithm: Any, tiny: dict[str, Any], policy: Any, space: spaces.Space[Any], pattern: str
) -> None:
    with pytest.raises(ValueError, match=f"observation_space=.*{pattern}"):
        algorithm(policy, AnySpaces(box([-1.0], [1.0]), space), **tiny)


@pytest.mark.parametrize("other", [SAC, TD3, DQN, PPO])
@pytest.mark.parametrize("alias", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_a_policy_class_of_sb3_is_refused_with_the_name_of_ours(other: Any, alias: str) -> None:
    with pytest.raises(
        TypeError, match=rf"policy=stable_baselines3\..* does not derive from .*LangevinPolicy.*pass '{alias}'"
    ):
        NCLQL(other.policy_aliases[alias], "Pendulum-v1")


@pytest.mark.parametrize(
    ("policy", "error", "pattern"),
    [
        ("MlpPolcy", ValueError, "policy='MlpPolcy' is unknown: pass 'MlpPolicy'"),
        ("x", ValueError, "policy='x' is unknown: pass one of 'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy'"),
        (None, TypeError, "policy=None is neither a class nor a name"),
        (NCLQL, TypeError, "policy=sb3_lql.nclql.nclql.NCLQL does not derive from"),
    ],
)
def test_what_is_no_policy_is_refused(algorithm: Any, policy: Any, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        algorithm(policy, "Pendulum-v1")


@pytest.mark.parametrize("name", ["use_sde", "policy_kwargs"])
def test_gsde_that_is_not_asked_for_is_no_matter(algorithm: Any, tiny: dict[str, Any], name: str) -> None:
    policy_kwargs = dict(net_arch=[4], use_sde=False)
    kwargs = dict(use_sde=False) if name == "use_sde" else dict(policy_kwargs=policy_kwargs)
    model = algorithm("MlpPolicy", "Pendulum-v1", **(tiny | kwargs)).learn(60)
    assert model._n_updates == 10
    assert policy_kwargs == dict(net_arch=[4], use_sde=False)  # the user's stay as they were


@pytest.mark.parametrize("save", ["save", "save_safe"])
def test_files_may_say_that_gsde_is_not_asked_for(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Any, save: str
) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **(tiny | dict(policy_kwargs=dict(net_arch=[4], use_sde=False))))
    getattr(model, save)(tmp_path / "model")
    loaded = getattr(algorithm, save.replace("save", "load"))(tmp_path / "model", device="cpu")
    assert loaded.policy_kwargs == dict(net_arch=[4], use_sde=False)


def foreign_arguments() -> list[str]:
    """What constructors of SB3's off-policy algorithms take and ours do not."""
    ours = inspect.signature(LQL).parameters.keys() | inspect.signature(OffPolicyAlgorithm).parameters.keys()
    names = [name for other in (SAC, TD3, DQN) for name in inspect.signature(other).parameters if name not in ours]
    return sorted({*names, "sde_sample_freq", "use_sde_at_warmup", "top_quantiles_to_drop_per_net"})


@pytest.mark.parametrize("name", foreign_arguments())
def test_arguments_of_other_algorithms_are_refused_with_a_reason(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Any, name: str
) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.save(tmp_path / "model")
    model.save_safe(tmp_path / "model")
    makers: tuple[Callable[[], Any], ...] = (
        lambda: algorithm("MlpPolicy", "Pendulum-v1", **{name: 1}),
        lambda: algorithm.load(tmp_path / "model", **{name: 1}),
        lambda: algorithm.load_safe(tmp_path / "model", **{name: 1}),
    )
    for make in makers:
        with pytest.raises(TypeError, match=rf"{algorithm.__name__} has no argument '{name}': .*from_sac"):
            make()


@pytest.mark.parametrize(
    ("own", "name", "value"), [(NCLQL, "target_entropy", -2.0), (DIPO, "max_grad_norm", 1.0), (SDAC, "policy_delay", 3)]
)
def test_arguments_of_its_own_may_be_changed_by_load(own: Any, name: str, value: float, tmp_path: Any) -> None:
    model = own("MlpPolicy", "Pendulum-v1", policy_kwargs=dict(net_arch=[4]), buffer_size=10)
    model.save(tmp_path / "model")
    model.save_safe(tmp_path / "model")
    assert getattr(own.load(tmp_path / "model", **{name: value}), name) == value
    assert getattr(own.load_safe(tmp_path / "model", **{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "meant"),
    [("learnig_rate", "learning_rate"), ("inverse_temprature", "inverse_temperature"), ("sed", "seed")],
)
def test_a_misspelt_argument_is_pythons_error_with_a_hint(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Any, name: str, meant: str
) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.save(tmp_path / "model")
    model.save_safe(tmp_path / "model")
    model.save_checkpoint(tmp_path / "checkpoints")
    makers: tuple[Callable[[], Any], ...] = (
        lambda: algorithm("MlpPolicy", "Pendulum-v1", **{name: 1e-3}),
        lambda: algorithm.load(tmp_path / "model", **{name: 1e-3}),
        lambda: algorithm.load_safe(tmp_path / "model", **{name: 1e-3}),
        lambda: algorithm.load_checkpoint(tmp_path / "checkpoints", "Pendulum-v1", **{name: 1e-3}),
    )
    for make in makers:
        with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}': did you mean '{meant}'"):
            make()
    assert "kwargs" not in inspect.signature(algorithm).parameters


def images(within_dict: bool) -> VecEnv:
    image = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    space = spaces.Dict(img=image, vec=VECTOR) if within_dict else image
    return DummyVecEnv([lambda: AnySpaces(box([-1.0], [1.0]), space)])


def few(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | dict(buffer_size=30, learning_starts=12, batch_size=4)


@pytest.mark.parametrize("within_dict", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: VecNormalize(env, norm_obs=False),
        lambda env: VecTransposeImage(VecNormalize(env, norm_obs=False)),
        lambda env: VecNormalize(VecFrameStack(env, 2), norm_obs=False),
    ],
)
def test_normalising_around_images_with_channels_last_is_refused_with_the_remedy(
    algorithm: Any, tiny: dict[str, Any], within_dict: bool, wrap: Any
) -> None:
    policy = "MultiInputPolicy" if within_dict else "CnnPolicy"
    with pytest.raises(ValueError, match=r"observation_space=.*VecNormalize\(VecTransposeImage\(env\)"):
        algorithm(policy, wrap(images(within_dict)), **few(tiny))
    env = VecNormalize(VecTransposeImage(images(within_dict)), norm_obs=False)
    model = algorithm(policy, env, **few(tiny)).learn(14)
    assert model._n_updates == 2
    with pytest.raises(ValueError, match="VecTransposeImage"):
        model.set_env(wrap(images(within_dict)))


def test_normalising_images_as_vectors_is_allowed(algorithm: Any, tiny: dict[str, Any]) -> None:
    assert algorithm("MlpPolicy", VecNormalize(images(False)), **few(tiny)).learn(14)._n_updates == 2
    with pytest.raises(ValueError, match="VecTransposeImage"):
        algorithm("CnnPolicy", VecNormalize(images(False)), **few(tiny))
