"""``sb3-lql speed`` as a user runs it, without compilation and with few repetitions."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3")

from sb3_lql.zoo import cli
from tests.zoo.conftest import sb3_lql

TINY = ("--no-compile", "--repetitions", "2", "--batch-size", "8")
ENTRIES = [
    *("update: naive", "update: eager", "update: SAC"),
    *("chain: bare matrix products", "chain: naive", "chain: eager"),
    *("iteration: eager", "iteration: SAC"),
    *("deterministic 1: eager", "deterministic 1: SAC"),
    *("deterministic 20: eager", "deterministic 20: SAC"),
    *("predict 1: naive", "predict 1: eager", "predict 1: SAC"),
    *("predict 5: naive", "predict 5: eager", "predict 5: SAC"),
]


def test_speed_prints_tables_and_writes_the_same_figures(tmp_path: Path) -> None:
    sizes = ("--size", "inverteddoublependulum", "reacher")
    options = (*TINY, "--device", "cpu", *sizes, "--profile", "--output", "figures.json")
    output = sb3_lql("speed", *options, folder=tmp_path)
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["command"] == f"sb3-lql speed {' '.join(options)}"
    assert report["versions"].keys() - {"commit"} == {"python", "torch", "stable_baselines3", "sb3_lql"}
    assert (report["device"], report["algo"], report["batch_size"], report["repetitions"]) == ("cpu", ["nclql"], 8, 2)
    assert report["threads"] == 1  # as the suite's conftest asks
    assert report["cpu"]

    assert list(report["sizes"]) == ["inverteddoublependulum", "reacher"]
    printed = [
        line.strip("| ").split(" | ")
        for line in output.splitlines()
        if line.startswith(tuple(f"| {entry}" for entry in ENTRIES))
    ]
    figures = [figure for size in report["sizes"].values() for figure in size]
    assert [row[0] for row in printed] == ENTRIES * 2
    for (_, median, ratio, *_), figure in zip(printed, figures, strict=True):
        first_quartile, third_quartile = figure["quartiles_ms"]
        assert 0 < first_quartile <= figure["median_ms"] <= third_quartile
        assert median == f"{figure['median_ms']:.2f}"
        assert ratio == f"{figure['ratio_to_reference']:.2f}"
    assert output.count("Self CPU time total") == 2
    assert "aten::bmm" in output


def test_speed_of_lql_needs_no_file(tmp_path: Path) -> None:
    output = sb3_lql("speed", *TINY, "--algo", "lql", "--size", "inverteddoublependulum", folder=tmp_path)
    assert "lql, inverteddoublependulum (11 observations, 1 actions)" in output
    assert not list(tmp_path.iterdir())


def test_speed_compares_several_algorithms_with_nclql_and_sac(tmp_path: Path) -> None:
    options = (*TINY, "--algo", "sdac", "mvp", "--size", "humanoid", "--output", "figures.json")
    output = sb3_lql("speed", *options, folder=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())["sizes"]["humanoid"]
    timed = [(figure["group"], figure["name"]) for figure in figures["timings"]]
    names = ["NC-LQL", "SDAC", "MVP", "SAC"]
    assert timed == [(group, name) for group in ("update", "predict 1", "predict 5") for name in names]
    assert [f["ratio_to_reference"] for f in figures["timings"] if f["name"] == "NC-LQL"] == [1.0] * 3
    assert list(figures["parameters"]) == names
    assert "| SDAC | 707,395 | 1.487 |" in output  # table 2 of the paper


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--repetitions", "0"), "argument --repetitions: 0 is not positive"),
        (("--batch-size", "-1"), "argument --batch-size: -1 is not positive"),
        (("--output", "nowhere/figures.json"), "there is no folder nowhere"),
        (("--size", "octopus"), "invalid choice: 'octopus'"),
        (("--jax", "nowhere"), "nowhere is no clone of https://github.com/ku-dmlab/NCLQL"),
        (("--jax", ".", "--algo", "lql"), "that code is nclql alone, leave out --algo lql"),
    ],
)
def test_speed_refuses_what_it_cannot_measure(
    options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "speed", *options])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert message in capsys.readouterr().err
