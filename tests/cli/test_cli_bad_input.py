"""Misuse and broken surroundings: one clear message and the right exit code, nothing lost.

What bad images, archs and tables make is tested in the rooms that refuse them; here is what a user
of the commands sees.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
from cli_helpers import (
    COMMANDS,
    ROOT,
    TRAIN,
    assert_one_message,
    finish,
    run,
    start,
    write_images,
)
from job_helpers import make_config
from PIL import Image

from ofa_tf.cli import common
from ofa_tf.errors import FailureError
from ofa_tf.files import write_json
from ofa_tf.search import LatencyTable
from ofa_tf.search.latency import distinct_blocks
from ofa_tf.spaces import Arch, get_space

TINY = get_space("ofa_mbv3_tiny")


# -- before TensorFlow is imported ------------------------------------------------------------


def test_no_command_imports_tensorflow_before_it_works():
    """So --help and misuse answer at once."""
    modules = [f"ofa_tf.cli.{command}" for command in COMMANDS]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        "print(sorted({'tensorflow', 'keras', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_and_lists_its_flags(command):
    ended = run(command, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"ofa-{command}: ")
    assert "--workdir" in ended.out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--workdir=",), "give the folder of the job, --workdir=DIR"),
        (("--workdir=x", "--wokrer=3"), "Unknown command line flag 'wokrer'"),
        (("--workdir=x", "more"), "unknown argument 'more'; flags are given as --name=value."),
        (("--flagfile=missing.flags",), "missing.flags"),
    ],
)
def test_wrong_command_lines(command, args, expected):
    assert_one_message(run(command, *args), 2, f"ofa-{command}: ", expected)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "quickstart"])
def test_no_command_line(command):
    """All but ofa-quickstart need to be told where the job is."""
    assert_one_message(run(command), 2, "give the folder of the job, --workdir=DIR")


@pytest.mark.parametrize("command", COMMANDS)
def test_another_keras_backend(command, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    ended = run(command, "--workdir=x")
    assert_one_message(ended, 2, "KERAS_BACKEND is 'jax'; ofa_tf needs tensorflow. Unset it")


def test_no_escape_of_others_reaches_the_terminal(tmp_path, monkeypatch):
    """Neither in the last message, nor in what is told before, nor in a table."""
    evil = "a\x1b]0;owned\x07\u202eb"
    shown = r"a\x1b]0;owned\x07\u202eb"

    def evaluate(*_) -> None:
        print(f"{evil}: 1 %")
        common.log.info("Evaluating %s\nand more", evil)
        raise FailureError(f"{evil} is gone.")

    monkeypatch.setattr("ofa_tf.cli.eval.evaluate", evaluate)
    ended = run("eval", f"--workdir={tmp_path}")
    assert (ended.code, ended.out) == (1, f"{shown}: 1 %\n")
    assert ended.err == f"Evaluating {shown}\nand more\nofa-eval: {shown} is gone.\n"


def test_in_a_process_of_its_own_it_is_the_same():
    ended = finish(start("train", "--workdir=x", env={"KERAS_BACKEND": "torch"}))
    assert_one_message(ended, 2, "KERAS_BACKEND is 'torch'; ofa_tf needs tensorflow. Unset it")
    assert len(ended.err.splitlines()) == 1
    ended = finish(start("train", "--workdir=x", "--space=ofa_mbv4"))
    assert_one_message(ended, 2, "no search space 'ofa_mbv4'; known: ofa_mbv3_w1.0, ofa_mbv3_w1.2")
    assert len(ended.err.splitlines()) == 1


# -- settings of a training -------------------------------------------------------------------


SANDWICH = ("--schedule=sandwich", "--phases=sandwich", "--epochs=1", "--base_lr=0.1")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--space=nope"], "There is no search space 'nope'; known: ofa_mbv3_w1.0,"),
        (["--batch_size=0"], "--batch_size=0"),
        (["--batch_size=many"], "--batch_size=many"),
        (["--phases=largest,banana"], "--schedule=progressive has no phase 'banana'; known: lar"),
        (["--phases=largest,sandwich"], "--schedule=progressive has no phase 'sandwich'; known: "),
        (["--small_subnets_first"], "small_subnets_first goes with phase growing, not with larg"),
        (["--coupling=2"], "--coupling=2"),
        (["--cores=0"], "--cores=0"),
        (["--replicas=0"], "--replicas=0"),
        (["--strategy=mirrored", "--cores=2"], "--cores is for --strategy=one_device, on a CPU"),
        (["--strategy=tpu", "--replicas=2"], "--replicas is for --strategy=one_device, on a CPU"),
        (["--schedule=sandwich"], "--schedule=sandwich has no phase 'largest'; known: sandwich."),
        (["--schedule=both"], "--schedule=both"),
        (["--phases=kernel,largest"], "phases keep the order largest, kernel, depth1,"),
        (["--phases="], "--epochs needs a number for each of the phases growing; it has 2."),
        ([*SANDWICH, "--subnets_per_step=1"], "subnets_per_step is at least 2, not 1."),
        (["--kd_loss=cosine"], "--kd_loss=cosine"),
        (["--kd_ratio=-1"], "--kd_ratio=-1"),
        (["--precision=int8"], "--precision=int8"),
        (["--strategy=horovod"], "--strategy=horovod"),
        (["--elastic=pad"], "--elastic=pad"),
        (["--accumulation_steps=0"], "--accumulation_steps=0"),
        (["--seed=4294967296"], "--seed=4294967296"),
        (["--seed=-1"], "--seed=-1"),
        ([*SANDWICH, "--subnets_per_step=1000"], "subnets_per_step is at most 64, not 1000; publ"),
        (["--keep_checkpoints=0"], "--keep_checkpoints=0"),
        (["--checkpoint_minutes=-1"], "--checkpoint_minutes=-1"),
        (["--eval_epochs=0"], "--eval_epochs=0"),
        (["--eval_images=0"], "--eval_images=0"),
        (["--max_skipped_steps=0"], "--max_skipped_steps=0"),
        (["--randaugment_layers=-1"], "--randaugment_layers=-1"),
        (["--randaugment_magnitude=11"], "--randaugment_magnitude=11"),
        (["--momentum=1"], "momentum is from 0 to below 1, not 1.0."),
        (["--label_smoothing=1"], "label_smoothing is from 0 to below 1, not 1.0."),
        (["--ema_decay=1"], "ema_decay is from 0 to below 1, not 1.0."),
        (["--clip_norm=-1"], "clip_norm is 0 or more, not -1.0."),
        (["--mixup_alpha=inf"], "mixup_alpha is 0 or more, not inf."),
        (["--epochs="], "of the phases largest, kernel; give it, or a --preset, which has it."),
        (["--epochs=1"], "--epochs needs a number for each of the phases largest, kernel; it has"),
        (["--base_lr=1,2,3"], "number for each of the phases largest, kernel; it has 3."),
        (["--warmup_epochs=1,1,1"], "--warmup_epochs needs a number for each of the phases"),
        (["--subnets_per_step=1"], "--subnets_per_step needs a number for each of the phases"),
        (["--epochs=1,two"], "--epochs is a list of numbers, not '1,two'."),
        (["--epochs=1,nan"], "--epochs is a list of numbers, not '1,nan'."),
        (["--base_lr=0.1,inf"], "--base_lr is a list of numbers, not '0.1,inf'."),
        (["--epochs=0,1"], "Phase largest needs positive epochs"),
        (["--warmup_epochs=0,2"], "Phase kernel: warmup_epochs is from 0 to its 1.0 epochs"),
        (["--subnets_per_step=1,1.5"], "--subnets_per_step is a list of whole numbers, not"),
        (["--resolutions=24.5"], "--resolutions is a list of whole numbers, not '24.5'."),
        (["--resolutions=20"], "can be restricted to some of [24, 28, 32], not to [20]"),
        (["--eval_crop=0"], "--eval_crop=0: 0.0 is not a number in the range [0.01, 1.0]"),
        (["--eval_crop=1e-9"], "--eval_crop=1e-9: 1e-09 is not a number in the range"),
        (["--crop_scale_min=0"], "crop_scale_min is 0.0; it must be in (0, 1]."),
        ([], "Give either dataset (a TFDS name) or data_dir (a folder of images)."),
        (["--dataset=a", "--data_dir=b"], "Give either dataset"),
        (["--dataset=cifar11"], "Unknown data set 'cifar11'. The embedded set is ofa_doodles"),
        (["--dataset=cifar11"], "cifar10"),
        (["--data_dir=missing/folder"], "missing/folder does not exist."),
    ],
)
def test_wrong_settings_of_a_training(args, expected, tmp_path):
    workdir = tmp_path / "job"
    assert_one_message(run("train", *TRAIN, f"--workdir={workdir}", *args), 2, expected)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--num_validation=500"], "num_validation is 500, but"),
        (["--num_validation=0"], "no validation images; set num_validation above 0"),
        (["--batch_size=1000"], "The batch size is 1000, but"),
        (["--accumulation_steps=3"], "batch_size is 16; it must be a multiple of 1 replicas tim"),
        (["--eval_resolutions=24,30"], "[24, 28, 32], not to [24, 30]"),
        (["--eval_resolutions=24,x"], "--eval_resolutions is a list of whole numbers, not '24,x'"),
        (["--xla"], "xla needs static shapes: give elastic=mask as well."),
        (["--phases=kernel,depth1"], "phases begin with kernel, so the weights of an earlier ph"),
        (["--train_split=train"], "train_split and test_split name TFDS splits"),
    ],
)
def test_settings_that_do_not_fit_the_images_are_not_recorded(args, expected, images, tmp_path):
    """They are found before the training, and the corrected command may use the same workdir."""
    workdir = tmp_path / "job"
    ended = run("train", *TRAIN, f"--data_dir={images}", f"--workdir={workdir}", *args)
    assert_one_message(ended, 2, expected)
    assert not (workdir / "config.json").exists()
    assert not (workdir / "checkpoints").exists()


def test_init_that_does_not_fit_is_not_recorded(trained, images, tmp_path):
    """The corrected command may use the same workdir."""
    workdir = tmp_path / "job"
    args = [*TRAIN, f"--data_dir={images}", f"--workdir={workdir}"]
    late = [*args, "--phases=kernel,depth1", f"--init={trained}/checkpoints/phase_kernel.npz"]
    assert_one_message(run("train", *late), 2, "is of phase kernel, which is not before kernel.")
    missing = [*args, "--phases=depth1,depth2", "--init=nothing.npz"]
    assert_one_message(run("train", *missing), 1, "Checkpoint nothing.npz is missing or damaged")
    assert not (workdir / "config.json").exists()
    assert not (workdir / "checkpoints").exists()


def test_a_phase_that_the_new_recipe_lacks(job):
    before = (job / "config.json").read_text()
    fewer = ["--phases=largest", "--epochs=1", "--base_lr=0.05", "--allow_recipe_change"]
    ended = run("train", *TRAIN, *fewer, *_data(job), f"--workdir={job}")
    assert_one_message(ended, 2, f"The run in {job} is in phase kernel, which the recipe does not")
    assert (job / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("args", "config", "expected"),
    [
        (["--strategy=tpu"], "", "There is no TPU '' to be reached: "),
        (["--strategy=multi_worker"], "{", "The workers cannot be set up from TF_CONFIG: "),
        (["--strategy=multi_worker"], "{}", "The cluster of TF_CONFIG has the jobs [], not"),
        (["--strategy=multi_worker"], '{"task": 3}', "The cluster of TF_CONFIG has the jobs []"),
        (["--strategy=multi_worker"], '{"cluster": 3}', "TF_CONFIG"),
    ],
)
def test_a_strategy_that_this_host_cannot_have(
    images, tmp_path, monkeypatch, args, config, expected
):
    monkeypatch.setenv("TF_CONFIG", config)
    ended = run("train", *TRAIN, f"--data_dir={images}", f"--workdir={tmp_path}/job", *args)
    assert_one_message(ended, 2, expected)
    assert not (tmp_path / "job").exists()


# -- images -----------------------------------------------------------------------------------


SHORT = ("--phases=largest", "--epochs=0.2", "--base_lr=0.01")  # one trace and two steps


def train_on(folder, workdir):
    return run("train", *TRAIN, *SHORT, f"--data_dir={folder}", f"--workdir={workdir}")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("none")
    ended = train_on(tmp_path / "photos", tmp_path / "job")
    assert_one_message(ended, 2, "photos has no images: expected folders named as the classes")


def test_a_folder_with_one_class(tmp_path):
    write_images(tmp_path / "photos", {"cat": 20})
    ended = train_on(tmp_path / "photos", tmp_path / "job")
    assert_one_message(ended, 2, "photos has images of one class only (cat); expected a folder for")


def test_files_that_are_no_images(tmp_path):
    """One of 200 is named and skipped; more than one in a hundred end the command."""
    folder, workdir = tmp_path / "photos", tmp_path / "job"
    write_images(folder, {"cat": 100, "dog": 100})
    (folder / "cat" / "000.png").write_bytes(b"no image")
    Image.new("L", (28, 28), 90).save(folder / "dog" / "000.png")
    Image.new("CMYK", (28, 28), (9, 80, 200, 0)).save(folder / "dog" / "999.jpg")
    Image.new("I;16", (28, 28), 40_000).save(folder / "cat" / "999.png")
    ended = train_on(folder, workdir)
    assert ended.code == 0, ended.err
    assert f"1 of 202 files in {folder} are no images that can be read: " in ended.err
    assert "cat/000.png (it is no JPEG, PNG, GIF, BMP or WebP). They are skipped." in ended.err
    assert (workdir / "checkpoints" / "phase_largest.npz").exists()
    for i in range(3):
        (folder / "dog" / f"00{i}.png").write_bytes(b"no image")
    ended = train_on(folder, tmp_path / "other")
    message = f"4 of 202 files in {folder} are no images that can be read: "
    assert_one_message(ended, 2, message, "000.png", "At most 1 % are skipped; repair or remove")


# -- a workdir that is not what the command needs ---------------------------------------------


@pytest.mark.parametrize("command", ["eval", "latency", "search", "export", "report"])
def test_a_workdir_without_a_job(command, tmp_path):
    ended = run(command, f"--workdir={tmp_path}")
    assert_one_message(ended, 2, f"{tmp_path} holds no job. Run ofa-train or ofa-import with this")


def test_a_workdir_of_another_space(job, images):
    before = {path: path.read_bytes() for path in job.rglob("*") if path.is_file()}
    other = [*TRAIN, "--space=ofa_mbv3_cifar", f"--data_dir={images}", f"--workdir={job}"]
    ended = run("train", *other)
    assert_one_message(
        ended,
        2,
        f"{job} holds a job with other settings: ",
        "--space was ofa_mbv3_tiny, is ofa_mbv3_cifar",
        "Give another --workdir, or the same settings",
    )
    assert {path: path.read_bytes() for path in job.rglob("*") if path.is_file()} == before


def test_a_workdir_with_another_recipe(job, images):
    other = [*TRAIN, "--base_lr=0.05,0.01", f"--data_dir={images}", f"--workdir={job}"]
    assert_one_message(run("train", *other), 2, "--base_lr was 0.05,0.05, is 0.05,0.01")


def test_a_job_without_a_checkpoint(job):
    shutil.rmtree(job / "checkpoints")
    ended = run("eval", f"--workdir={job}")
    assert_one_message(ended, 2, "has no checkpoint. Run ofa-train or ofa-import first.")


def test_damaged_checkpoints(job):
    """The newest is reported and the one before is used; if all are damaged, that is the end."""
    older, newest = sorted((job / "checkpoints").glob("step_*.npz"))
    newest.write_bytes(newest.read_bytes()[:5000])
    ended = run("eval", f"--workdir={job}", "--arch=smallest")
    assert ended.code == 0, ended.err
    assert f"Checkpoint {newest} is missing or damaged" in ended.err
    assert "Trying the one before it." in ended.err
    assert ended.out.startswith("smallest: ")
    older.write_bytes(b"")
    ended = run("eval", f"--workdir={job}")
    assert_one_message(ended, 1, f"No checkpoint in {job / 'checkpoints'} can be read.")
    ended = run("train", *TRAIN, *_data(job), f"--workdir={job}")
    assert_one_message(ended, 1, "remove the folder to train anew.")


def _data(job) -> list[str]:
    return [f"--data_dir={json.loads((job / 'config.json').read_text())['data']['data_dir']}"]


def test_a_damaged_config(job):
    (job / "config.json").write_text('{"space": "ofa_')
    assert_one_message(run("eval", f"--workdir={job}"), 1, "config.json could not be read as JSON")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("search", [], "latency_host_float32_1t.json is missing. Run this first: ofa-latency"),
        ("export", [], "search.json is missing. Run ofa-search first."),
        ("export", ["--formats=keras,onnx"], "onnx"),
        ("latency", ["--latency_resolutions=24,x"], "list of whole numbers, not '24,x'"),
        ("latency", ["--latency_resolutions=20"], "[24, 28, 32]"),
        ("latency", ["--target=phone", "--adb_path=none/adb"], "none/adb"),
        ("latency", ["--cpus=fast"], "cpus: expected big, little, auto, core numbers"),
        ("eval", ["--arch=missing.json"], "path of an arch.json, not 'missing.json'"),
        ("eval", ["--arch=largest", "--resolution=33"], "[24, 28, 32], not to [33]"),
        ("eval", ["--split=train"], "--split=train"),
    ],
)
def test_wrong_orders_to_a_trained_job(trained, command, args, expected):
    before = sorted(trained.rglob("*"))
    assert_one_message(run(command, f"--workdir={trained}", *args), 2, expected)
    assert sorted(trained.rglob("*")) == before


def test_a_report_of_what_was_only_trained(job):
    ended = run("report", f"--workdir={job}")
    assert ended.code == 0, ended.err
    assert "There is no table of results: " in ended.err
    assert "search.json is missing. Run ofa-search first." in ended.err
    page = (job / "report.html").read_text()
    assert "blue, green, red" in page
    assert page.count('<td class="text">done</td>') == 2
    assert not (job / "results.json").exists()


def test_a_report_without_measurements(job):
    (job / "search.json").write_text(json.dumps({"settings": {}, "subnets": []}))
    ended = run("report", f"--workdir={job}")
    assert "measurements.jsonl is missing. Run this first: mobile-bench " in ended.err
    assert (job / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "this is not JSON"),
        ('{"ks": [3], "e": [3], "d": [1]}', "missing: ['r']"),
        (Arch.from_dict({"ks": [3], "e": [3], "d": [1], "r": 24}).to_json(), "has 3 depths, not 1"),
        (get_space("ofa_mbv3_w1.0").max().to_json(), "ofa_mbv3_tiny has 3 depths, not 5"),
        (TINY.max().to_json().replace("7", "9", 1), "is one of [3, 5, 7], not 9"),
        (TINY.max().to_json().replace('"r": 32', '"r": 36'), "is one of [24, 28, 32], not 36"),
        (TINY.max().to_json().replace('"r": 32', '"r": NaN'), "r holds"),
    ],
)
def test_an_arch_that_is_not_in_the_space(trained, tmp_path, content, expected):
    path = tmp_path / "arch.json"
    path.write_text(content)
    ended = run("eval", f"--workdir={trained}", f"--arch={path}")
    assert_one_message(ended, 2, f"{path}: ", expected)


# -- latency budgets --------------------------------------------------------------------------


def write_latency_table(workdir, **changes) -> LatencyTable:
    """A table in which every block takes a tenth of a millisecond."""
    resolutions = (TINY.resolutions[0], TINY.resolutions[-1])
    blocks = dict.fromkeys(distinct_blocks(TINY, 3, resolutions), 0.1)
    table = LatencyTable(TINY, 3, resolutions, blocks, overhead_ms=0.0)
    path = workdir / "latency_host_float32_1t.json"
    table.save(path)
    if changes:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return table


def test_a_budget_that_cannot_be_met(job):
    least, _ = write_latency_table(job).minimum()
    ended = run("search", f"--workdir={job}", "--budget_ms=5,0.01")
    assert_one_message(ended, 2, "0.01", f"{least:.3g}"[:3])
    assert not (job / "search.json").exists()
    assert not (job / "accuracy_rows.jsonl").exists()  # at once, before the slow part


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("1,fast", "--budget_ms is a list of numbers, not '1,fast'."),
        ("0", "--budget_ms holds positive numbers, not 0."),
        ("1,-2", "--budget_ms holds positive numbers, not 1,-2."),
        ("nan", "--budget_ms is a list of numbers, not 'nan'."),
    ],
)
def test_a_budget_that_is_none(job, budget, expected):
    write_latency_table(job)
    assert_one_message(run("search", f"--workdir={job}", f"--budget_ms={budget}"), 2, expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": "ofa_mbv3_cifar"}, "it is of ofa_mbv3_cifar, not of ofa_mbv3_tiny"),
        ({"slope": -1.0}, "slope is -1.0"),
        ({"block_ms": {}}, "lacks the block"),
        ({"format": "ofa_tf latency table 2"}, "it is no latency table, or of another version"),
    ],
)
def test_a_latency_table_that_cannot_serve(job, changes, expected):
    write_latency_table(job, **changes)
    refused = "latency_host_float32_1t.json cannot be used: "
    ended = run("search", f"--workdir={job}", "--budget_ms=1")
    assert_one_message(ended, 2, refused, expected)
    ended = run("latency", f"--workdir={job}")
    assert_one_message(ended, 2, refused, expected, "ofa-latency measures anew once ")


# -- a disk that refuses ----------------------------------------------------------------------


def test_a_workdir_that_cannot_be_made(images, tmp_path):
    (tmp_path / "file").write_text("mine")
    ended = train_on(images, tmp_path / "file" / "job")
    assert_one_message(ended, 1, f"{tmp_path}/file/job/images.json could not be written: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_fills_up_while_training(images, tmp_path):
    """Files may not grow beyond 100 kB, as on a disk with no more room; later they may."""
    workdir = tmp_path / "job"
    args = ["train", *TRAIN, *SHORT, f"--data_dir={images}", f"--workdir={workdir}"]
    limit = 100_000

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = finish(start(*args, preexec_fn=no_room))
    assert_one_message(ended, 1, ".npz could not be written: File too large")
    assert os.listdir(workdir / "checkpoints") == []
    again = run(*args)
    assert again.code == 0, again.err
    assert sorted(os.listdir(workdir / "checkpoints")) == [
        "phase_largest.npz",
        "step_000000002.npz",
    ]


def test_a_recipe_that_is_no_flag_is_damage_of_its_job(tmp_path):
    subnet = {"name": "a", "arch": TINY.min().to_dict(), "predicted_accuracy": 0.5}
    write_json(tmp_path / "search.json", {"subnets": [subnet]})
    config = make_config(data={"seed": 0}, recipe={"batch_size": "many"})
    write_json(tmp_path / "config.json", config)
    ended = run("finetune", f"--workdir={tmp_path}")
    assert_one_message(ended, 1, "config.json is damaged: recipe: ", "batch_size", "from a copy.")


@pytest.mark.parametrize("command", ["export", "report"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"subnets": 3}'])
def test_a_damaged_search_result_is_one_message(job, command, content):
    (job / "search.json").write_text(content)
    ended = run(command, f"--workdir={job}")
    assert_one_message(ended, 1, "search.json ", ". Remove it and run ofa-search again.")
