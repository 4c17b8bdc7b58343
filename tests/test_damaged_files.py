"""Damaged files: whatever is wrong in a file of a job, its readers read it or say which file it is.

Every good file of a small job is damaged at random places: by values of JSON that nobody expects
there, by keys that are missing, and by cuts. Each time all that read it are asked.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from page_helpers import ARCHS, SPACE, TABLE, full_job
from search_helpers import measurement

from ofa_tf.cli.arch_files import read_arch
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export.card import SubnetSpec, load_card
from ofa_tf.export.interface import Interface
from ofa_tf.export.load import _read_normalization
from ofa_tf.export.plan_file import plan_texts, read_plan
from ofa_tf.files import append_json, write_json
from ofa_tf.interop import read_net_config
from ofa_tf.job import load_job
from ofa_tf.report import file_table, text_table
from ofa_tf.report.page import read_report, render
from ofa_tf.report.result_rows import MeasuredSo, result_rows
from ofa_tf.search import EvolutionOracle, LatencyTable, SubnetTuner
from ofa_tf.search.accuracy_rows import collect_accuracies, evaluate_archs
from ofa_tf.search.accuracy_tuning import _tuner as make_fit_tuner
from ofa_tf.search.latency import distinct_blocks
from ofa_tf.search.latency_measuring import measure_all
from ofa_tf.search.rows import RowFile
from ofa_tf.spaces.blueprint import GlobalPool
from ofa_tf.training import checkpoints, finetuning
from ofa_tf.training.metrics import MetricsLog
from ofa_tf.workdir import Workdir

DAMAGES = 10  # of each file
DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]
VALUES = (
    *(None, True, 5, -1, 0, 0.5, "x", "", "5", [], {}, [[]], {"a": 1}, [None], DEEP),
    *(float("nan"), float("inf"), 1e300, 10**400, "../../evil", "a\0b", "\x1b[31m", "\u202e"),
)
SETTINGS = {"max_trials": 4, "population_size": 3, "sample_size": 2}


# -- the job, and who reads what of it --------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Workdir:
    """A job with every kind of file that ofa_tf reads again."""
    workdir = full_job(tmp_path_factory.mktemp("good") / "job")
    blocks = distinct_blocks(SPACE, 2, (24, 32))
    table = LatencyTable(SPACE, 2, (24, 32), dict.fromkeys(blocks, 0.01), 0.002)
    write_json(workdir.path / TABLE, _as_saved(table, workdir) | _report(workdir))
    for index, arch in enumerate(SPACE.decode(SPACE.sample_codes(4, np.random.default_rng(0)))):
        row = {"space": SPACE.name, "seed": 0, "fingerprint": "", "index": index}
        append_json(workdir.accuracy_rows, {**row, "arch": arch.to_dict(), "accuracy": 0.5})
        row = {"fingerprint": "", "num_images": 10, "arch": arch.to_json(), "accuracy": 0.5}
        append_json(workdir.evaluated_rows, row)
        append_json(workdir.path / "latency.rows.jsonl", {"space": SPACE.name, **_timing(index)})
    small = workdir.subnets / "small"
    for name, text in plan_texts(SPACE.blueprint(ARCHS["small"], 2)).items():
        (small / name).write_text(text)
    _write_own_plan(workdir.path / "own")
    write_json(small / "arch.json", ARCHS["small"].to_dict())
    spec = SubnetSpec.of_arch("small", SPACE, ARCHS["small"], ("cat", "dog"), _interface(), "feed")
    card = json.loads((small / "card.json").read_text())
    write_json(small / "card.json", spec.describe() | card | {"classes": ["cat", "dog"]})
    tuned = workdir.finetuned("small")
    config = json.loads(workdir.config_file.read_text())
    recipe = config["recipe"] | {"arch": ARCHS["small"].to_dict()}
    origin = {"supernet": checkpoints.weights_hash(_supernet()), "recipe": recipe}
    write_json(tuned.config_file, config | origin)
    for when in ("before", "after"):
        append_json(tuned.metrics, {"when": when, "accuracy": {"subnet": 0.5}})
    _tuned(workdir.path, "search")
    fits = make_fit_tuner(workdir.path / "fits", workdir.path / "fits", 2, 0)
    fits.score, fits.progress = lambda settings: 0.01, None
    fits.search(verbose=0)
    return workdir


def _as_saved(table: LatencyTable, workdir: Workdir) -> dict:
    table.save(workdir.path / "saved.json")
    return json.loads((workdir.path / "saved.json").read_text())


def _report(workdir: Workdir) -> dict:
    made_up = json.loads((workdir.path / TABLE).read_text())
    return {key: made_up[key] for key in ("setup", "report")}


def _timing(index: int) -> dict:
    record = measurement(f"m{index}.tflite", 100.0).to_dict()
    setup = {key: record[key] for key in ("device", "tool", "settings")}
    numbers = {"p5_us": 100.0, "median_us": 110.0, "count": 50, "reasons_invalid": []}
    return {"round": 0, "model": f"m{index}", **numbers, "date": record["date"], "setup": setup}


def _interface() -> Interface:
    return Interface(((0.5,) * 3, (0.2,) * 3), "pixels", "logits")


def _write_own_plan(folder: pathlib.Path) -> None:
    plan = SPACE.blueprint(SPACE.min(), 2)
    blocks = [plan.blocks[0], *plan.elastic_blocks[:1]]
    pool = GlobalPool("pool", blocks[-1].out_size, blocks[-1].out_channels)
    classifier = {"in_channels": pool.in_channels, "out_channels": 2, "dropout": 0.1}
    kinds = [{"kind": type(each).__name__, **vars(each)} for each in (*blocks, pool)]
    kinds.append({"kind": "Classifier", "name": "classifier", **classifier})
    content = {"resolution": plan.resolution, "bn_momentum": 0.9, "bn_epsilon": 1e-3}
    write_json(folder / "blueprint.json", content | {"blocks": kinds})


def _tuned(folder: pathlib.Path, project: str) -> None:
    oracle = EvolutionOracle(SPACE, **SETTINGS)
    tuner = SubnetTuner(oracle, lambda arch: 0.5, directory=folder, project_name=project)
    tuner.search(verbose=0)
    tuner.best_archs(2)


@functools.cache
def _supernet() -> keras.Model:
    """Stands for the trained one, of which only the hash of its weights is asked for."""
    return keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])


def _page(folder: pathlib.Path) -> None:
    job = load_job(folder)
    render(read_report(job.workdir, job.space, {}), job.space)


def _job(folder: pathlib.Path) -> None:
    job = load_job(folder)
    assert job.class_names
    assert job.data_config
    job.workdir.check(job.config)
    with contextlib.suppress(UsageError):  # that tells the differences
        job.workdir.check(job.config | {"recipe": {"batch_size": 1}, "space": "other"})


def _results(folder: pathlib.Path) -> None:
    job = load_job(folder)
    rows, _ = result_rows(
        job.workdir, job.space, job.chosen_subnets(), MeasuredSo("host", 1, "", "xnnpack")
    )
    text_table(rows)


def _exported(folder: pathlib.Path) -> None:
    small = folder / "subnets" / "small"
    spec = SubnetSpec.of_arch("small", SPACE, ARCHS["small"], ("cat", "dog"), _interface(), "feed")
    rows = load_card(small, spec)["files"].items()
    file_table([{"name": name, **entry} for name, entry in rows])
    _read_normalization(small / "card.json", spec.plan)


def _origin(folder: pathlib.Path) -> None:
    tuned = Workdir(folder).finetuned("small")
    finetuning.accuracies(tuned)
    finetuning.check_origin(tuned, _supernet(), ARCHS["small"])


def _collect(folder: pathlib.Path) -> None:
    collect_accuracies(SPACE, lambda arch: 0.5, folder / "accuracy_rows.jsonl", 4)


def _evaluate(folder: pathlib.Path) -> None:
    path = folder / "evaluated_rows.jsonl"
    evaluate_archs(ARCHS.values(), lambda arch: 0.5, path, fingerprint="", num_images=10)


def _measure(folder: pathlib.Path) -> None:
    file = RowFile(folder / "latency.rows.jsonl", {"space": SPACE.name})
    names = [f"m{index}" for index in range(4)]
    measure_all(names, folder, file, _run, 1, lambda *_: None)


def _run(paths: list[str], told: Callable) -> None:
    for path in paths:
        told(measurement(path, 100.0))


def _fits(folder: pathlib.Path) -> None:
    make_fit_tuner(folder / "fits", folder / "fits", 2, 0).search(verbose=0)


READERS: dict[str, tuple[Callable[[pathlib.Path], Any], ...]] = {
    "config.json": (_job, _page),
    "search.json": (lambda f: load_job(f).chosen_subnets(), _results, _page),
    TABLE: (lambda f: LatencyTable.load(f / TABLE), _page),
    "front_macs_m.json": (_page,),
    "accuracy_report.json": (_page,),
    "metrics.jsonl": (_page, lambda f: MetricsLog(f / "metrics.jsonl", f / "tensorboard", 30)),
    "measurements.jsonl": (_page, _results),
    "accuracy_rows.jsonl": (_collect,),
    "evaluated_rows.jsonl": (_evaluate,),
    "latency.rows.jsonl": (_measure,),
    "subnets/small/card.json": (_exported, _results, _page),
    "subnets/small/arch.json": (lambda f: read_arch(SPACE, str(f / "subnets/small/arch.json")),),
    "subnets/small/net.config": (lambda f: read_net_config(f / "subnets/small/net.config"),),
    "subnets/small/run.config": (lambda f: read_net_config(f / "subnets/small/net.config"),),
    "own/blueprint.json": (lambda f: read_plan(f / "own"),),
    "finetuned/small/config.json": (_origin, _page),
    "finetuned/small/metrics.jsonl": (_origin, _page),
    "search/oracle.json": (lambda f: _tuned(f, "search"),),
    "search/trial_0/trial.json": (lambda f: _tuned(f, "search"),),
    "fits/oracle.json": (_fits,),
    "fits/trial_0/trial.json": (_fits,),
}


# -- damage -----------------------------------------------------------------------------------


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every list or object of a value, with each of its keys or indices."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in inner:
        found.append((value, key))
        if isinstance(child, (dict, list)):
            found += _places(child)
    return found


def _damaged(value: Any, rng: random.Random) -> Any:
    """A copy with one place less, or with something else there; or something else altogether."""
    value = [copy.deepcopy(value)]
    where, key = rng.choice(_places(value))
    if where is not value and rng.random() < 0.2:
        del where[key]
    else:
        where[key] = copy.deepcopy(rng.choice(VALUES))
    return value[0]


def damages(content: str, is_lines: bool, seed: str) -> Iterator[str]:
    """Texts that were a good file once: cut, or wrong in one place."""
    rng = random.Random(seed)
    yield ""
    yield "null\n"
    for _ in range(DAMAGES):
        if rng.random() < 0.1:
            yield content[: rng.randrange(len(content))]
        elif is_lines:
            lines = content.splitlines()
            index = rng.randrange(len(lines))
            lines[index] = json.dumps(_damaged(json.loads(lines[index]), rng))
            yield "\n".join(lines) + "\n"
        else:
            yield json.dumps(_damaged(json.loads(content), rng))


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_named(good, tmp_path, name, capfd):
    folder = shutil.copytree(good.path, tmp_path / "job")
    path = folder / name
    content = path.read_text()
    for read in READERS[name]:
        read(folder)  # what is whole is read
    refused = 0
    for text in damages(content, path.suffix == ".jsonl", name):
        for read in READERS[name]:
            path.write_text(text)
            try:
                read(folder)
            except (FailureError, UsageError) as error:
                refused += 1
                said = str(error)
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} of {text[:3000]}") from error
            else:
                continue
            assert path.name in said or str(path.parent) in said, text[:3000]
            assert len(said) < 3000
    assert refused > DAMAGES // 4
