"""Sessions on stand-in phones: options, model files, and what a user sees of a session."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mobile_bench.adb.device import FOLDER
from mobile_bench.errors import FailureError, MeasureError
from mobile_bench.results import Measurement, Settings
from mobile_bench.session import run
from mobile_bench.target import TargetOptions

SETTINGS = Settings(num_runs=5, min_secs=0.0, max_secs=0.5, warmup_min_secs=0.0)


def make_options(adb, tool_path: Path | None, **changes: object) -> TargetOptions:
    """Returns options for the phones of this adb server."""
    values = {"benchmark_binary": tool_path and str(tool_path), "environ": adb.environment}
    return TargetOptions(**(values | changes))


def write_models(folder: Path, names: str | list[str], size: int = 1000) -> list[str]:
    """Writes files that an instant tool takes for models, each with its own bytes."""
    paths = [folder / f"{name}.tflite" for name in names]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index + 1]) * size)
    return [str(path) for path in paths]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a session gave, and the lines that a user saw where something failed."""

    rows: list[Measurement]
    lines: list[str]

    @property
    def measured(self) -> list[str]:
        """The names of the models measured, in order."""
        return [Path(row.model).stem for row in self.rows]

    @property
    def line(self) -> str:
        """The one line of what failed."""
        assert len(self.lines) == 1, self.lines
        return self.lines[0]


def run_session(paths: list[str], target: str, options: TargetOptions, **changes) -> Outcome:
    """Runs a session of one round, without rests, to its end."""
    arguments = {"settings": SETTINGS, "rounds": 1, "cooldown_secs": 0.0} | changes
    rows: list[Measurement] = []
    lines: list[str] = []
    try:
        run(paths, target, options=options, on_result=rows.append, **arguments)
    except MeasureError as error:
        lines = list(error.failures.values())
    except FailureError as error:
        lines = [str(error)]
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < 600, line
    return Outcome(rows, lines)


def remote_files(phone) -> list[str]:
    """Returns the files in our folder on a phone."""
    folder = phone.root / FOLDER.lstrip("/")
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
