"""From what a run on a phone printed to its record."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone

from mobile_bench.errors import RunError, UsageError
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import Run
from mobile_bench.phone.description import parse_state
from mobile_bench.results import (
    Affinity,
    Delegation,
    Device,
    Measurement,
    Memory,
    OpTime,
    Settings,
    Timings,
    Tool,
    parse_cpus,
)
from mobile_bench.tool import result_proto
from mobile_bench.tool.op_profile import read_op_profile
from mobile_bench.tool.output import ToolRun, read_run
from mobile_bench.verdicts import judge_run


def make_measurement(
    run: Run,
    file: ModelFile,
    command: str,
    *,
    session: str,
    round_index: int,
    device: Device,
    tool: Tool,
    settings: Settings,
    cpus: tuple[int, ...] | None,
) -> Measurement:
    """Returns the record of a run that has ended.

    Args:
        run: What it printed.
        file: The model.
        command: The command line.
        session: For the record, as are the other ones.
        cpus: The cores that it should have been bound to.

    Raises:
        RunError: It crashed or was ended, or there is no time in what it printed.
    """
    told = read_run(run.text("out"), run.text("err"), run.exit_code, command)
    # The app of 2019 tells only means; all others tell how many runs they are of.
    is_whole = told.mean_us is not None and (told.count or told.generation == "2019")
    if run.exit_code != 0 or not is_whole:
        raise RunError(told.problems[0] if told.problems else "the tool tells no time")
    told, problems = _with_result(told, run)
    profile = None
    if settings.op_profile:
        try:
            profile = _profile(run)
        except ValueError as error:
            problems.append(str(error))
    affinity = Affinity(cpus, _granted(run))
    delegation = _delegation(told)
    timings = _timings(told)
    before = dataclasses.replace(parse_state(run.text("before")), date=run.started)
    after = parse_state(run.text("after"))
    return Measurement(
        session=session,
        round=round_index,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=file.path,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        inputs=(),
        device=device,
        tool=tool,
        command=command,
        settings=settings,
        affinity=affinity,
        delegation=delegation,
        timings=timings,
        memory=_memory(told),
        profile=profile,
        before=before,
        after=after,
        verdict=judge_run(
            settings, affinity, delegation, timings, before, after, device, problems, told.notes
        ),
    )


def _with_result(told: ToolRun, run: Run) -> tuple[ToolRun, list[str]]:
    """Adds what the result file knows better; also returns all problems."""
    data = run.result
    if data is None:
        return told, list(told.problems)
    try:
        told = result_proto.merge(told, result_proto.read_result(data))
    except ValueError as error:
        return told, [*told.problems, str(error)]
    return told, list(told.problems)


def _profile(run: Run) -> tuple[OpTime, ...]:
    # A build that cannot write the file prints the same tables.
    profile = read_op_profile(run.text("profile") or run.text("out"))
    return tuple(
        OpTime(op.name, op.node_type, 1000 * op.avg_ms, op.times_called, op.percent)
        for op in profile.ops
    )


def _granted(run: Run) -> tuple[int, ...] | None:
    try:
        return None if run.cpus is None else parse_cpus(run.cpus)
    except UsageError:
        return None


def _delegation(told: ToolRun) -> Delegation:
    return Delegation(
        delegate=told.delegate,
        partitions=told.delegate_partitions,
        ops=told.total_ops,
        delegated_ops=told.delegated_ops,
        complete=told.fully_delegated,
    )


def _timings(told: ToolRun) -> Timings:
    names = {field.name for field in dataclasses.fields(Timings)} - {"count"}
    known = {name: getattr(told, name) for name in names if hasattr(told, name)}
    return Timings(count=told.count or 0, **known)


def _memory(told: ToolRun) -> Memory | None:
    values = (told.init_memory_mb, told.overall_memory_mb, told.peak_memory_mb)
    return None if values == (None, None, None) else Memory(*values)
