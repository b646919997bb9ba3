"""The report of complete and of partial results."""

import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("rliable")

from sb3_lql.benchmark.comparison.report import write_report
from sb3_lql.benchmark.comparison.sections import NOTHING
from tests.benchmark.comparison import folders

HEADINGS = [
    "Final return",
    "Return over the training",
    "Learning curves",
    "Normalised performance",
    "Aggregates",
    "Parameters",
    "Time for an update",
    "Published elsewhere, other budgets, not part of any statistic here",
    "All runs",
]
TASKS = ["Reacher-v5", "Hopper-v5"]
ALGORITHMS = ["NC-LQL", "SAC"]
SEEDS = [100, 200, 300]


def fill(folder: Path, left_out: Iterable[tuple[str, str, int]] = ()) -> Path:
    """Runs with returns that grow by the seed for each evaluation, without some of them."""
    folders.plan(folder, ALGORITHMS, TASKS, SEEDS)
    for task in TASKS:
        for label in ALGORITHMS:
            for seed in SEEDS:
                if (task, label, seed) not in left_out:
                    folders.run(folder, task, label, seed, [float(seed * step) for step in range(6)])
    return folder


def report(results: Path, output: Path) -> tuple[str, str]:
    """The Markdown and the page."""
    page = write_report(results, output, n_bootstrap=50)
    assert page == output / "report.html"
    return (output / "report.md").read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def section(markdown: str, heading: str) -> str:
    """One part of the report."""
    return markdown.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_complete_results_give_all_sections_in_order(tmp_path: Path) -> None:
    markdown, page = report(fill(tmp_path / "results"), tmp_path / "report")
    assert re.findall("^## (.*)", markdown, flags=re.MULTILINE) == HEADINGS
    assert re.findall("<h2>(.*)</h2>", page) == HEADINGS
    assert "12 of 12 runs are finished." in markdown
    assert "not finished" not in markdown
    # The mean of 5 * 100, 5 * 200 and 5 * 300, and their deviation
    assert section(markdown, "Final return").count("| Hopper-v5 | 1,000 ± 500 | 1,000 ± 500 |") == 2
    # The mean of 1 to 5 times 100, 200 and 300, and their deviation
    over_training = section(markdown, "Return over the training")
    assert over_training.count("| Hopper-v5 | 600.0 ± 300.0 | 600.0 ± 300.0 |") == 2
    assert over_training.count("| NC-LQL ahead of | SAC |\n| --- | --- |\n| Reacher-v5 | 0.50 (p = 1) |") == 2
    assert section(markdown, "Parameters").count("| 1,000 (1.000) | 1,000 (1.000) |") == 2
    # 10 seconds for 800 updates
    assert section(markdown, "Time for an update").count("| 12.50 ms (1.000) | 12.50 ms (1.000) |") == 2
    assert section(markdown, "All runs").count("| finished | 100% | 4,000 |") == 12
    assert "`sb3-lql train --algo nclql --env Hopper-v5 --seed 300`" in markdown


def test_published_numbers_are_those_of_the_tasks_and_aggregates(tmp_path: Path) -> None:
    markdown, _ = report(fill(tmp_path / "results"), tmp_path / "report")
    published = section(markdown, HEADINGS[7])
    assert "Hopper-v3" in published
    assert "71.2 ± 7.3" in published  # NC-LQL in table 1
    assert "Humanoid" not in published


def test_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    _, page = report(fill(tmp_path / "results"), tmp_path / "report")
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 6
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not re.search(r"<script|<link|href=|url\(|@import", page)


def test_markdown_names_the_figures_beside_it(tmp_path: Path) -> None:
    markdown, _ = report(fill(tmp_path / "results"), tmp_path / "report")
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", markdown)
    written = sorted(f"figures/{path.name}" for path in (tmp_path / "report" / "figures").iterdir())
    assert sorted(named) == written


def test_same_results_give_the_same_files(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    assert report(results, tmp_path / "first") == report(results, tmp_path / "second")
    for path in (tmp_path / "first" / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / "figures" / path.name).read_bytes()


def test_report_says_what_is_missing_partial_or_failed(tmp_path: Path) -> None:
    left_out = [("Hopper-v5", "SAC", seed) for seed in (200, 300)]
    results = fill(tmp_path / "results", left_out)
    folders.run(results, "Reacher-v5", "NC-LQL", 100, float, n_done=2, status="running")
    error = "Traceback (most recent call last):\n  File\nValueError: a<b> | `c`\n"
    folders.run(results, "Reacher-v5", "NC-LQL", 200, [], status="failed", error=error)
    markdown, page = report(results, tmp_path / "report")
    assert "> **4 of 12 runs are not finished.**" in markdown
    warning = page.split("<blockquote>")[1].split("</blockquote>")[0]
    assert "running or stopped: NC-LQL on Reacher-v5, seed 100, at 40%" in warning
    assert "failed: NC-LQL on Reacher-v5, seed 200, at 0%: ValueError: a&lt;b&gt; | `c`" in warning
    assert "not begun: SAC on Hopper-v5, seeds 200, 300" in warning
    assert "Traceback" not in page

    finals = section(markdown, "Final return")
    assert "| Hopper-v5 | 1,000 ± 500 | 500.0 (1 of 3 seeds) |" in finals
    assert "| Reacher-v5 | 1,500 (1 of 3 seeds) | 1,000 ± 500 |" in finals
    assert "| SAC | \N{EN DASH} | \N{EN DASH} | fewer than 2 of 3 |" in section(markdown, "Aggregates")
    assert "| missing | 0% |" in section(markdown, "All runs")
    assert "`sb3-lql train for Hopper-v5/sac/300`" in section(markdown, "All runs")


def test_algorithm_without_a_complete_seed_has_no_aggregate(tmp_path: Path) -> None:
    left_out = [("Hopper-v5", "SAC", seed) for seed in SEEDS]
    markdown, _ = report(fill(tmp_path / "results", left_out), tmp_path / "report")
    aggregates = section(markdown, "Aggregates")
    assert f"| SAC | {NOTHING} | {NOTHING} | fewer than 2 of 3 |" in aggregates
    assert "NC-LQL over" not in aggregates
    assert f"| SAC |{f' {NOTHING} |' * 5}" in section(markdown, "Normalised performance")


def test_probability_of_improvement_is_of_the_first_over_each_other(tmp_path: Path) -> None:
    results = folders.plan(tmp_path / "results", ["X", "Y", "Z"], ["Hopper-v5", "Reacher-v5"], [1, 2])
    for label, value in dict(X=3.0, Y=2.0, Z=1.0).items():
        for task, seed in product(("Hopper-v5", "Reacher-v5"), (1, 2)):
            folders.run(results, task, label, seed, [value] * 6)
    markdown, _ = report(results, tmp_path / "report")
    sure = "1.000 (95%: 1.000 to 1.000)"
    table = f"| Probability of improvement |\n| --- | --- |\n| X over Y | {sure} |\n| X over Z | {sure} |\n"
    assert section(markdown, "Aggregates").count(table) == 2


def test_of_one_task_there_are_no_aggregates(tmp_path: Path) -> None:
    results = folders.plan(tmp_path / "results", ["SAC"], ["Hopper-v5"], [1, 2])
    for seed in (1, 2):
        folders.run(results, "Hopper-v5", "SAC", seed, float)
    markdown, _ = report(results, tmp_path / "report")
    assert "## Normalised performance" in markdown
    assert "## Aggregates" not in markdown


def test_single_seed_is_reported_without_deviations(tmp_path: Path) -> None:
    results = folders.plan(tmp_path / "results", ["SAC"], ["Hopper-v5", "Reacher-v5"], [1])
    for task in ("Hopper-v5", "Reacher-v5"):
        folders.run(results, task, "SAC", 1, float)
    markdown, _ = report(results, tmp_path / "report")
    assert section(markdown, "Final return").count("| Hopper-v5 | 5.00 (1 seed) |") == 2
    assert "±" not in section(markdown, "Aggregates")


@pytest.mark.parametrize("others", [[], [2]])
def test_run_that_failed_before_its_training_is_reported(tmp_path: Path, others: list[int]) -> None:
    results = folders.plan(tmp_path / "results", ["SAC"], ["Hopper-v5"], [1, *others])
    for seed in others:
        folders.run(results, "Hopper-v5", "SAC", seed, float)
    folders.run(results, "Hopper-v5", "SAC", 1, [], status="failed", error="")
    path = results / "runs" / "Hopper-v5" / "sac" / "1" / "run.json"
    content = json.loads(path.read_text())
    known_once_built = ("learning_starts", "parameters", "versions", "hardware", "hyperparams", "n_envs")
    path.write_text(json.dumps({name: value for name, value in content.items() if name not in known_once_built}))
    markdown, _ = report(results, tmp_path / "report")
    assert "failed: SAC on Hopper-v5, seed 1, at 0%: no error recorded" in markdown
    assert f"| Hopper-v5 | {'1,000 (1.000)' if others else NOTHING} |" in section(markdown, "Parameters")


def test_tasks_without_a_reference_have_no_aggregates(tmp_path: Path) -> None:
    results = folders.plan(tmp_path / "results", ["SAC"], ["Pendulum-v1"], [1])
    folders.run(results, "Pendulum-v1", "SAC", 1, float)
    markdown, _ = report(results, tmp_path / "report")
    assert "No task has a reference, so there are no aggregates." in markdown
    assert "## Aggregates" not in markdown
    assert f"| Pendulum-v1 | {NOTHING} |" in section(markdown, "Normalised performance")


def test_times_on_different_hardware_are_said_not_to_compare(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    hardware = dict(processor="Another one", cores=8, memory_gb=32.0, device="cpu", threads=1)
    markdown, _ = report(results, tmp_path / "report")
    assert "different hardware" not in markdown
    folders.run(results, "Hopper-v5", "SAC", 100, float, hardware=hardware)
    markdown, _ = report(results, tmp_path / "report")
    assert "The runs are of different hardware: their times do not compare." in markdown


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    label = "LQL | w=<50> *x* `y`"
    results = folders.plan(tmp_path / "results", [label], ["Hopper-v5", "Reacher-v5"], [1, 2])
    for task, seed in product(("Hopper-v5", "Reacher-v5"), (1, 2)):
        folders.run(results, task, label, seed, float)
    _, page = report(results, tmp_path / "report")
    assert page.count("<th>LQL | w=&lt;50&gt; *x* `y`</th>") == 6
    assert page.count("<td>LQL | w=&lt;50&gt; *x* `y`</td>") == 2 * 2 + 4
