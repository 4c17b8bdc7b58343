"""The blocks of the pages run as they stand there, on a job that is as small as can be.

The README's road comes first; each page then begins with a copy of the job that it left. What is
made smaller is in SMALLER and SMALLER_PYTHON: everything else is what the reader would type.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cli_helpers import run, write_images
from command_lines import strip
from pages import PAGES, ROOT, Block, blocks, commands, name_of, tables

from mobile_bench import cli as mobile_bench_cli

pytestmark = pytest.mark.slow

README = ROOT / "README.md"
SPACE = Path(__file__).with_name("smallest_space.py")
JOB = Path("runs/cifar10")
_FEW = ("--batch_size=16", "--checkpoint_minutes=60", "--eval_images=8")
# Flags added to a command of the pages; they win over those that it has.
SMALLER = {
    "ofa-train": (
        *_FEW,
        f"--space={SPACE}",
        "--calibration_images=16",
        "--eval_resolutions=24",
    ),
    "ofa-finetune": (*_FEW, "--epochs=1"),
    "ofa-latency": (
        "--latency_rounds=1",
        "--latency_min_secs=0.002",
        "--fit_subnets=4",
        "--check_subnets=1",
        "--latency_resolutions=16,24",
    ),
    "ofa-predictor": ("--num_archs=12", "--arch_images=8", "--ensemble=2"),
    # Its budgets in milliseconds are of another network and host: spread over this one's.
    "ofa-search": ("--budget_ms=", "--num_budgets=2", "--num_archs=12", "--arch_images=8"),
    "ofa-export": (
        "--int8_images=8",
        "--test_images=8",
        "--verify_images=8",
        "--min_agreement=0.1",  # it is hardly trained
    ),
    "mobile-bench": ("--rounds=1", "--num_runs=2", "--min_secs=0.001", "--warmup_min_secs=0"),
}
SMALLER_PYTHON = {
    "max_trials=40": "max_trials=4",
    "limit=500": "limit=8",
    'target="host")': 'target="host", rounds=1, min_secs=0.001)',
}


def run_block(block: Block, names: dict) -> str:
    """Runs a block in the current folder and returns what its commands printed.

    Args:
        block: of the shell, or of Python.
        names: what the page's Python has defined so far; more after it.
    """
    if block.language == "python":
        text = block.text
        for large, small in SMALLER_PYTHON.items():
            text = text.replace(large, small)
        exec(compile("\n" * block.line + text, str(block.page), "exec"), names)
        return ""
    return "".join(run_command(strip(words)) for words in commands(block.text))


def run_command(words: list[str]) -> str:
    command, *arguments = words
    arguments += SMALLER.get(command, ())
    if any(argument.startswith("--space=") for argument in arguments):
        arguments.append(f"--space={SPACE}")  # the resolutions in SMALLER are of it
    if command == "mobile-bench":
        assert mobile_bench_cli.main([command, *arguments]) == 0
        return ""
    assert command.startswith("ofa-"), f"a test cannot run {command}: say why before the block"
    ended = run(command.removeprefix("ofa-"), *arguments)
    assert ended.code == 0, f"{' '.join(words)}\n{ended.err}"
    return ended.out


def run_here(page: Path) -> list[Block]:
    """The blocks of a page that this test runs."""
    return [
        block
        for block in blocks(page)
        if block.language in ("sh", "python") and not block.not_run and not block.run_by
    ]


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the README's commands ran, and what they printed."""
    folder = tmp_path_factory.mktemp("road")
    write_images(folder / "PATH" / "train", dict.fromkeys(("blue", "green", "red"), 40))
    write_images(folder / "PATH" / "test", dict.fromkeys(("blue", "green", "red"), 10), seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shell = [block for block in run_here(README) if block.language == "sh"]
        printed = "".join(run_block(block, {}) for block in shell)
    return folder, printed


@pytest.fixture
def there(road, tmp_path, monkeypatch) -> Path:
    """A copy of that folder as the current one, with what the pages call by other names."""
    folder = shutil.copytree(road[0], tmp_path / "there")
    monkeypatch.chdir(folder)
    first = min((JOB / "subnets").iterdir())
    shutil.copytree(first, JOB / "subnets" / "NAME")
    shutil.copytree(JOB, "runs/quickstart")
    return folder


def test_the_road_leaves_what_the_readme_lists(road):
    folder, printed = road
    assert re.search(r"^subnet +input \(px\) +budget +predicted", printed, re.MULTILINE)
    (table,) = [table for table in tables(README) if table.head == ["what", "where"]]
    for cell in table.column(1):
        for path in re.findall("`([^`]+)`", cell.replace("`: `", "")):
            found = path.replace("<budget>", "*")
            assert list((folder / JOB).glob(found)) or list(
                (folder / JOB / "subnets").glob(f"*/{found}")
            ), path


@pytest.mark.parametrize("page", [page for page in PAGES if run_here(page)], ids=name_of)
def test_blocks_run(page, there, capsys):
    names = {}
    for block in run_here(page):
        if page != README or block.language == "python":  # its commands made the job
            run_block(block, names)
    if page.name in CHECKS:
        CHECKS[page.name](names, capsys.readouterr().out)


def check_readme(names, printed):
    assert names["logits"].shape == (1, 10)
    assert next(iter(names["backbone"].output)) == "stride_4"


def check_search(names, printed):
    """The example of keras-tuner, which comes last."""
    tuner, arch, job = names["tuner"], names["arch"], names["job"]
    lines = printed.splitlines()
    assert len([line for line in lines if re.match(r"trial \d+: accuracy ", line)]) == 3
    assert lines[-1].endswith(f"parameters at {arch.resolution} px")
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert len(trials) == tuner.oracle.max_trials == 4
    for trial in trials:
        assert job.space.blueprint(tuner.oracle.arch(trial), 3).macs <= 1.5e6


def check_data(names, printed):
    assert names["data"].class_names == ("blue", "green", "red")


def check_export(names, printed):
    """All that can be written without training is there."""
    from ofa_tf.export import FORMATS  # imports TensorFlow, which takes seconds

    for folder in (JOB / "subnets").iterdir():
        if folder.name != "NAME":
            there = {file.name for file in folder.iterdir()}
            assert set(FORMATS.values()) - there == {FORMATS["tflite_qat"]}
    assert names["logits"].shape == (2, 3)


CHECKS = {
    "README.md": check_readme,
    "SEARCH.md": check_search,
    "DATA.md": check_data,
    "EXPORT.md": check_export,
}
