"""
The constructor arguments that all algorithms share, written once.

A constructor names its own arguments and takes the others as ``**kwargs: Unpack[...]`` of a ``TypedDict``, which type
checkers and editors know. What ``help`` and ``inspect.signature`` show is composed here.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from typing_extensions import TypedDict, get_original_bases

#: A parameter in a docstring: its name, and its description with all of its lines.
_PARAMETER = re.compile(r"^:param (\w+):((?:.*\n?)(?:[ \t]+\S.*\n?)*)", re.MULTILINE)


class SharedArguments(TypedDict, total=False):
    """
    What every algorithm takes besides the policy, the environments and the learning rate.

    :param policy: policy class or its alias: MlpPolicy, CnnPolicy, MultiInputPolicy
    :param env: environment to learn from, or its id; ``None`` to load a trained model
    :param learning_rate: learning rate, or a schedule of the remaining progress (from 1 to 0)
    :param buffer_size: transitions in the replay buffer
    :param learning_starts: steps of uniformly random actions before learning starts
    :param batch_size: transitions per update
    :param tau: share of the online networks in a target update, in [0, 1]
    :param gamma: discount factor, in [0, 1]
    :param train_freq: update every ``train_freq`` steps, or a tuple such as (5, "step") or (2, "episode")
    :param gradient_steps: updates after each rollout; -1 for as many as environment steps were made
    :param action_noise: noise added to the actions when collecting
    :param replay_buffer_class: e.g. ``HerReplayBuffer``; used as it is. If ``None``, SB3's choice with observations in
        float32; pass ``ReplayBuffer`` for SB3's own. ``DeviceReplayBuffer`` lives where the networks do
    :param replay_buffer_kwargs: keyword arguments of the replay buffer
    :param optimize_memory_usage: SB3's memory-efficient replay buffer
    :param n_steps: steps of n-step returns
    :param reward_scale: factor on rewards inside the update
    :param target_update_interval: update the target networks every so many updates
    :param stats_window_size: episodes in the logged rollout statistics
    :param tensorboard_log: folder for TensorBoard; none if ``None``
    :param policy_kwargs: keyword arguments of the policy
    :param verbose: 0 for no output, 1 for info, 2 for debug messages
    :param seed: seed of the random generators
    :param device: "cpu", "cuda", ... or "auto"
    :param _init_setup_model: whether to build the networks at construction
    :param n_action_samples: actions drawn per observation when acting and evaluating, of which the best by the minimum
        critic is taken; the cost grows with it. TD targets of LQL and NC-LQL use one
    :param compile: ``True`` compiles the chain and the critics, which takes one to three minutes the first time;
        ``None`` does so where a ``learn`` of at least 10,000 updates pays it back. On a GPU both replay updates and
        actions as CUDA graphs. ``False`` does neither
    :param overlap_updates: make the updates after a rollout while the environments take their next step, whose action
        is then chosen before those updates; pays with ``SubprocVecEnv``
    :param use_sde: not supported; must be ``False``
    """

    buffer_size: int
    learning_starts: int
    batch_size: int
    tau: float
    gamma: float
    train_freq: int | tuple[int, str]
    gradient_steps: int
    action_noise: ActionNoise | None
    replay_buffer_class: type[ReplayBuffer] | None
    replay_buffer_kwargs: dict[str, Any] | None
    optimize_memory_usage: bool
    n_steps: int
    reward_scale: float
    target_update_interval: int
    stats_window_size: int
    tensorboard_log: str | None
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: th.device | str
    _init_setup_model: bool
    n_action_samples: int
    compile: bool | None
    overlap_updates: bool
    use_sde: bool


#: Their defaults, unless an algorithm has its own.
DEFAULTS: dict[str, Any] = dict(
    buffer_size=1_000_000,
    learning_starts=100,
    batch_size=256,
    tau=0.005,
    gamma=0.99,
    train_freq=1,
    gradient_steps=1,
    action_noise=None,
    replay_buffer_class=None,
    replay_buffer_kwargs=None,
    optimize_memory_usage=False,
    n_steps=1,
    reward_scale=1.0,
    target_update_interval=1,
    stats_window_size=100,
    tensorboard_log=None,
    policy_kwargs=None,
    verbose=0,
    seed=None,
    device="auto",
    _init_setup_model=True,
    n_action_samples=1,
    compile=None,
    overlap_updates=False,
    use_sde=False,
)

#: Those that SB3's constructor takes; the others are attributes of ours.
SB3_ARGUMENTS = frozenset(inspect.signature(OffPolicyAlgorithm.__init__).parameters)


def compose_signature(cls: type[Any]) -> None:
    """
    Let ``help`` and ``inspect.signature`` show every argument of an algorithm, with its type, default and description.

    :param cls: an algorithm with ``defaults``; left alone unless its constructor takes ``**kwargs: Unpack[...]``
    """
    constructor = vars(cls).get("__init__")
    if constructor is None:
        return
    parameters = list(inspect.signature(constructor).parameters.values())
    types = get_args(constructor.__annotations__.get(parameters[-1].name))
    if parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD or not types:
        return
    annotations = types[0].__annotations__
    of_family = {name: kind for name, kind in annotations.items() if name not in SharedArguments.__annotations__}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=cls.defaults[name], annotation=kind)
        for name, kind in (of_family | SharedArguments.__annotations__).items()
    ]
    constructor.__signature__ = inspect.Signature([*parameters[:-1], *shared], return_annotation=None)
    if cls.__doc__:
        cls.__doc__ = _with_descriptions(cls, types[0], [parameter.name for parameter in (*parameters[1:-1], *shared)])


def _with_bases(shared: Any) -> Iterator[Any]:
    """A ``TypedDict`` and those that it extends, of which it keeps the entries but not the docstrings."""
    yield shared
    for base in get_original_bases(shared):
        if base is not TypedDict:
            yield from _with_bases(base)


def _with_descriptions(cls: type[Any], shared: Any, names: list[str]) -> str:
    """The docstring of a class, with the arguments that its bases and ``shared`` describe among its own."""
    own = inspect.cleandoc(cls.__doc__ or "")
    described: dict[str, str] = {}
    ours = [base for base in cls.__mro__ if not issubclass(OffPolicyAlgorithm, base)]
    for base in (*ours, *_with_bases(shared)):
        for name, text in _PARAMETER.findall(inspect.cleandoc(base.__doc__ or "")):
            described.setdefault(name, text.rstrip())
    before, *_ = own.partition(":param ")
    after = own[own.find(":raises ") :] if ":raises " in own else ""
    parameters = "\n".join(f":param {name}:{described[name]}" for name in names if name in described)
    return f"{before.rstrip()}\n\n{parameters}\n{after}"
