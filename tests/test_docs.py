"""What the documentation shows is what its results files hold."""

import ast
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("markdown_it")

from matplotlib.figure import Figure

import sb3_lql
from sb3_lql import LQL, NCLQL, baselines
from sb3_lql.benchmark.bandit.distances import distance_table
from sb3_lql.benchmark.bandit.measures import measured_rows, mode_table
from sb3_lql.benchmark.bandit.runs import NAMES
from sb3_lql.benchmark.bandit.tempering import estimate_table
from sb3_lql.benchmark.comparison import report
from sb3_lql.benchmark.comparison.spec import slug
from sb3_lql.benchmark.multi_goal.measures import goal_table
from sb3_lql.benchmark.speed import parameters_table, speed_table
from sb3_lql.benchmark.tables import markdown_table

DOCS = Path(__file__).parents[1] / "docs"
if not DOCS.is_dir():
    pytest.skip("no documentation beside these tests", allow_module_level=True)


def read(name: str) -> Any:
    return json.loads((DOCS / "bandit" / name).read_text())


def test_bandit_page_shows_the_measures_of_all_runs() -> None:
    runs = read("runs.json")
    assert [(run["algo"], run["seed"]) for run in runs] == [
        (algo, seed) for algo in ("nclql", "lql", "sac") for seed in (100, 200, 300, 400, 500)
    ]
    table = mode_table([(f"{NAMES[run['algo']]}, seed {run['seed']}", run) for run in runs])
    assert table in (DOCS / "bandit" / "tables.md").read_text()
    page = (DOCS / "bandit.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    for algo in ("nclql", "lql", "sac"):
        columns = zip(*(cells for name, *cells in rows if name.startswith(f"{NAMES[algo]}, ")), strict=True)
        ranges = [" … ".join(dict.fromkeys([min(column), max(column)])) for column in columns]
        assert f"| {NAMES[algo]}, five seeds | {' | '.join(ranges)} |" in page


def test_bandit_page_shows_what_the_rivals_measured() -> None:
    runs = json.loads((DOCS / "bandit" / "rivals" / "runs.json").read_text())
    compared = {"comparedqsm", "compareddipo", "compareddacer"}
    assert {run["algo"] for run in runs} == {"nclql", "lql", "sac", *map(str.lower, baselines.__all__), *compared}
    rows = [row for run in runs for row in measured_rows(NAMES[run["algo"]], run)]
    assert mode_table(rows) in (DOCS / "bandit.md").read_text()


def test_multi_goal_page_includes_the_table_of_its_runs() -> None:
    folder = DOCS / "multi_goal"
    runs = json.loads((folder / "runs.json").read_text())
    algos = dict.fromkeys(run["algo"] for run in runs)
    named = [(NAMES[algo], [run for run in runs if run["algo"] == algo]) for algo in algos]
    assert goal_table(named) == (folder / "table.md").read_text()


def test_boltzmann_page_shows_all_distances() -> None:
    page = (DOCS / "boltzmann.md").read_text()
    for distances in read("distances.json").values():
        assert distance_table(distances) in page
        assert estimate_table(distances) in page


def test_boltzmann_page_shows_the_tempered_agent() -> None:
    runs = json.loads((DOCS / "bandit" / "tempered" / "runs.json").read_text())
    tempered = mode_table(measured_rows("LQL, tempered", runs[-1])).splitlines()[-1]
    assert tempered in (DOCS / "boltzmann.md").read_text()


def test_bandit_page_shows_the_chains_with_a_perfect_critic() -> None:
    page = (DOCS / "bandit.md").read_text()
    assert (DOCS / "bandit" / "chains.md").read_text() in page
    *_, nclql, lql = (DOCS / "bandit" / "tables.md").read_text().split("\n\n")[1].splitlines()
    assert nclql in page
    assert lql in page


def test_pages_quote_the_returns_of_the_authors_code() -> None:
    results = json.loads((DOCS / "results" / "authors_code.json").read_text())
    returns = {
        task: [f"{entry['mean']} ± {entry['std']}" for entry in entries.values()]
        for task, entries in results["returns"].items()
    }
    reacher, pendulum = returns["Reacher-v4"], returns["InvertedDoublePendulum-v4"]
    assert f"| the authors' code, return | {' | '.join(reacher[:4])} |" in (DOCS / "nclql.md").read_text()
    q_means = map(str, results["mean_q"]["Reacher-v4"].values())
    assert f"| the authors' code, mean Q | {' | '.join(q_means)} | |" in (DOCS / "nclql.md").read_text()
    assert all(quoted in (DOCS / "benchmark.md").read_text() for quoted in (reacher[3], pendulum[3]))
    assert f"{reacher[1]} and {pendulum[1]}" in (DOCS / "speed.md").read_text()


def test_speed_page_shows_the_tables_of_its_results() -> None:
    page = (DOCS / "speed.md").read_text()
    for device, sizes in {"cpu": ["halfcheetah", "humanoid"], "cuda": ["halfcheetah"]}.items():
        report = json.loads((DOCS / "results" / f"speed_{device}.json").read_text())
        assert report["device"] == device
        assert list(report["sizes"]) == sizes
        for timings in report["sizes"].values():
            assert speed_table(timings) in page


def test_speed_page_compares_all_algorithms() -> None:
    page = (DOCS / "speed.md").read_text()
    report = json.loads((DOCS / "results" / "speed_rivals.json").read_text())
    assert report["command"] in page
    figures = report["sizes"]["humanoid"]
    assert speed_table(figures["timings"]) in page
    assert parameters_table(figures["parameters"]) in page


def returns_table(runs: list[dict[str, Any]]) -> str:
    """Returns at the end of the runs of ``examples/fast_path.py``: a row for each task and variant, in their order."""
    seeds = sorted({run["seed"] for run in runs})
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for run in runs:
        mean, std = list(run["returns"].values())[-1]
        rows.setdefault((run["env_id"], run["variant"]), {})[run["seed"]] = f"{mean:.2f} ± {std:.2f}"
    cells = [[*key, *(of_seed.get(seed, "") for seed in seeds)] for key, of_seed in rows.items()]
    return markdown_table(["task", "chain", *(f"seed {seed}" for seed in seeds)], cells)


def bfloat16_distance_table(bfloat16: list[dict[str, Any]], float32: list[dict[str, Any]]) -> str:
    """Total variation of the same sampler in float32 and bfloat16; a column for each ``w``."""

    def key(entry: dict[str, Any]) -> tuple[Any, ...]:
        return entry["sampler"], entry["steps"], entry["inverse_temperature"]

    exact = {key(entry): entry["total_variation"] for entry in float32}
    columns = dict.fromkeys(f"w = {entry['inverse_temperature']:g}" for entry in bfloat16)
    rows: dict[tuple[str, int], list[str]] = {}
    for entry in bfloat16:
        if entry["steps"]:
            cells = rows.setdefault((entry["sampler"], entry["steps"]), [])
            cells.append(f"{exact[key(entry)]:.3f}, {entry['total_variation']:.3f}")
    return markdown_table(
        ["sampler", "steps", *columns], [[name, f"{n:,}", *cells] for (name, n), cells in rows.items()]
    )


def test_speed_page_shows_what_bfloat16_does() -> None:
    page = (DOCS / "speed.md").read_text()
    results = json.loads((DOCS / "results" / "fast_path.json").read_text())
    assert returns_table(results["learning"]) in page
    assert bfloat16_distance_table(results["distances_bfloat16"], results["distances_float32"]) in page
    table = mode_table([(f"NC-LQL, seed {run['seed']}, bfloat16", run) for run in results["bandit_bfloat16"]])
    assert table in page


def page_of(algorithm: type[LQL | NCLQL]) -> str:
    """Its page, and the one with the arguments and logged quantities of both."""
    return "\n".join((DOCS / f"{name}.md").read_text() for name in (algorithm.__name__.lower(), "arguments"))


@pytest.mark.parametrize("algorithm", [LQL, NCLQL])
def test_an_algorithm_page_has_every_argument_and_its_default(algorithm: type[LQL | NCLQL]) -> None:
    rows = re.findall(r"^\| `(\w+)`[^|]*\| `?(.*?)`? \|", page_of(algorithm), re.MULTILINE)
    defaults = dict(rows)
    parameters = list(inspect.signature(algorithm.__init__).parameters.values())[1:]
    missing = [parameter.name for parameter in parameters if parameter.name not in defaults]
    assert not missing
    for parameter in parameters:
        if isinstance(parameter.default, bool | int | float | str | tuple):
            assert eval(defaults[parameter.name]) == parameter.default


@pytest.mark.parametrize("algorithm", [LQL, NCLQL])
def test_an_algorithm_page_has_every_logged_quantity(algorithm: type[LQL | NCLQL]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", learning_starts=5, policy_kwargs=dict(net_arch=[4]), buffer_size=10)
    page = page_of(algorithm)
    for key in model.learn(10).logger.name_to_value:
        assert f"`{key}`" in page


def public_names() -> list[str]:
    """The public interface, as the API reference lists it."""
    reference = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    return re.findall(r"^\.\. auto(?:class|function):: (\S+)$", reference, re.MULTILINE)


def test_every_public_name_exists_and_is_documented() -> None:
    assert {"sb3_lql.LQL", "sb3_lql.NCLQL"} <= set(public_names())
    for name in public_names():
        assert pkgutil.resolve_name(name).__doc__, name


def test_pages_import_public_names_only() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md"), *(DOCS / "shared").glob("*.md")]
    code = [block for page in pages for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)]
    imports = [node for block in code for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    imported = {name for name in names if name.startswith("sb3_lql.")}
    assert imported
    assert not imported - set(public_names())


def names_arguments(lines: list[str], statement: ast.stmt) -> bool:
    """Whether the comment above a block of attributes says where they are described, as arguments."""
    number = statement.lineno - 1
    while lines[number].strip() and not lines[number].lstrip().startswith("#"):
        number -= 1
    return lines[number].strip().startswith("# Arguments of the constructor, see ")


def undocumented_attributes(path: Path) -> list[str]:
    """Public attributes that neither a ``#:`` nor a ``:param:`` describes; ruff sees to all but attributes."""
    source = path.read_text()
    lines = ["", *source.splitlines()]
    missing = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if any("Struct" in ast.unparse(base) for base in node.bases):  # the entries of a file
            continue
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign | ast.Assign):
                target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
                name = ast.unparse(target)
                described = lines[statement.lineno - 1].strip().startswith("#:") or names_arguments(lines, statement)
                if not (name.startswith("_") or described or f":param {name}:" in (ast.get_docstring(node) or "")):
                    missing.append(f"{path.name}: {node.name}.{name}")
    return missing


def test_every_public_attribute_is_described() -> None:
    package = Path(sb3_lql.__file__).parent
    modules = [
        path
        for folder in (
            "baselines",
            "collecting",
            "common",
            "diffusion",
            "engine",
            "envs",
            "exporting",
            "langevin",
            "lql",
            "nclql",
            "networks",
            "saving",
        )
        for path in (package / folder).rglob("*.py")
    ]
    assert not [name for path in modules for name in undocumented_attributes(path)]


def test_what_the_readme_links_to_exists() -> None:
    """Links within the documentation are checked where it is built, by ``make doc``."""
    readme = DOCS.parent / "README.md"
    targets = re.findall(r"\]\((?!http)([^)#]+)", readme.read_text())
    assert targets
    for target in targets:
        assert (readme.parent / target).exists(), target


@pytest.mark.parametrize("folder", sorted((DOCS / "benchmark").iterdir()), ids=lambda folder: folder.name)
def test_benchmark_report_is_that_of_its_results(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(figure: Figure, path: Path) -> str:  # whose drawing takes most of the time
        path.write_text("<svg/>")
        return path.name

    monkeypatch.setattr(report, "save_figure", save)
    report.write_report(folder, tmp_path)
    text = (folder / "report.md").read_text()
    assert (tmp_path / "report.md").read_text() == text
    if folder.name == "ablations":  # a column for each setting: tuning.md has a row for each
        return
    tables = text.split("## Final return")[1].split("## Return over")[0].split("\n\n")
    page = (DOCS / "benchmark.md").read_text()
    shown = [part for part in tables if part.startswith("|")]
    if folder.name == "sample_efficiency":
        over_training = text.split("## Return over the training")[1].split("## Learning curves")[0].split("\n\n")
        # Of both tables the deterministic one
        shown += [part for part in over_training if part.startswith("|")][::2]
        assert shown[0].strip() in (DOCS / "shared" / "results.md").read_text()
    for table in shown:
        assert table.strip() in page


def ablation_table(folder: Path) -> str:
    """For each setting the finished runs, their returns, and how many solved the task, after how many steps."""
    rows = []
    for algorithm in json.loads((folder / "benchmark.json").read_text())["algorithms"]:
        runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"runs/*/{slug(algorithm)}/*/run.json"))]
        if len(runs) < 2:
            continue
        returns = np.array([[np.mean(each["deterministic"]["returns"]) for each in run["evaluations"]] for run in runs])
        steps = [each["timesteps"] for each in runs[0]["evaluations"]]
        # The task's top is 9,360
        solved = [steps[int(np.argmax(of_run >= 9_000))] for of_run in returns if of_run.max() >= 9_000]
        finals = f"{returns[:, -1].mean():,.0f} ± {returns[:, -1].std(ddof=1):,.0f}"
        areas = returns[:, 1:].mean(axis=1)
        over_training = f"{areas.mean():,.0f} ± {areas.std(ddof=1):,.0f}"
        first = " to ".join(dict.fromkeys(f"{end(solved):,}" for end in (min, max))) if solved else ""
        rows.append([algorithm, str(len(runs)), finals, over_training, str(len(solved)), first])
    return markdown_table(["setting", "seeds", "return", "over training", "solved", "after steps"], rows)


def test_tuning_page_shows_the_ablations() -> None:
    table = ablation_table(DOCS / "benchmark" / "ablations")
    assert table in (DOCS / "tuning.md").read_text()
