"""The README's example of a search with keras-tuner, run as it stands there on a small job."""

from __future__ import annotations

import re

from cli_helpers import ROOT

HEADING = "## Searching with keras-tuner\n"
SMALLER = {"max_trials=40": "max_trials=6"}  # what the test changes besides the workdir
WORKDIR = "runs/quickstart"


def example() -> str:
    """The first block of Python after the heading."""
    _, text = (ROOT / "README.md").read_text().split(HEADING)
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def test_the_example_of_keras_tuner_in_the_readme_runs(job, capsys):
    script = example()
    for text, other in (SMALLER | {WORKDIR: str(job)}).items():
        assert text in script
        script = script.replace(text, other)
    names = {}
    exec(compile(script, "README.md", "exec"), names)
    tuner, arch = names["tuner"], names["arch"]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.match(r"trial \d+: accuracy ", line)]) == 3
    assert lines[-1].endswith(f"parameters at {arch.resolution} px")
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert len(trials) == tuner.oracle.max_trials == 6
    for trial in trials:
        assert names["job"].space.blueprint(tuner.oracle.arch(trial), 3).macs <= 1.5e6
