"""Running means of logged tensors."""

import pytest
import torch as th

from sb3_lql.common.statistics import RunningMeans


def test_means_are_over_all_additions_since_the_last_collection() -> None:
    means = RunningMeans()
    assert means.collect() == {}
    means.add({"a": th.tensor(1.0), "b": th.tensor(10.0)})
    means.add({"a": th.tensor(3.0), "b": th.tensor(30.0)})
    assert means.collect() == pytest.approx({"a": 2.0, "b": 20.0})
    assert means.collect() == {}
    means.add({"a": th.tensor(5.0), "b": th.tensor(0.0)})
    assert means.collect() == pytest.approx({"a": 5.0, "b": 0.0})


def test_added_tensors_keep_no_graph() -> None:
    means = RunningMeans()
    leaf = th.ones((), requires_grad=True)
    means.add({"loss": leaf * 2})
    assert means._sum is not None
    assert not means._sum.requires_grad
