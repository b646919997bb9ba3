"""Counts of parameters: numbers of the paper and of the facts about the rivals."""

from stable_baselines3 import SAC
from stable_baselines3.common.envs import FakeImageEnv

from sb3_lql.benchmark.parameters import count_parameters
from sb3_lql.benchmark.speed import make_model, make_sac


def test_parameters_on_humanoid_are_those_of_the_networks() -> None:
    """
    On 376 observations and 17 actions: table 2 of the paper for NC-LQL, LQL and SAC, and the rivals' as published and
    as compared.
    """
    expected = {
        "nclql": 475_746,
        "lql": 465_410,
        "qsm": 1_493_299,
        "dipo": 727_091,
        "dacer": 707_909,
        "qvpo": 727_091,
        "sdac": 707_395,
        "dpmd": 707_395,
        "comparedqsm": 702_227,
        "compareddipo": 710_419,
    }
    found = {name: count_parameters(make_model("humanoid", name, "cpu", compiled=False)) for name in expected}
    assert {name: sum(counts.values()) for name, counts in found.items()} == expected
    assert all(
        set(counts) == ({"critic"} if "lql" in name else {"critic", "denoiser"}) for name, counts in found.items()
    )
    assert sum(count_parameters(make_sac("humanoid", "cpu")).values()) == 702_244


def test_an_extractor_that_networks_share_is_counted_once() -> None:
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=False)
    model = SAC("CnnPolicy", env, buffer_size=1, policy_kwargs=dict(share_features_extractor=True))
    optimizers = (model.actor.optimizer, model.critic.optimizer)
    learned = {parameter for optimizer in optimizers for parameter in optimizer.param_groups[0]["params"]}
    assert sum(count_parameters(model).values()) == sum(parameter.numel() for parameter in learned)
