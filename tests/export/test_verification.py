"""Verification: what is told of a file is true, and a file that is not good enough is none."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
from export_helpers import EXPORTED, cut_out, random_subnet, supernet_classes

import mobile_bench
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import (
    FORMATS,
    Interface,
    Qat,
    Thresholds,
    convert,
    convert_subnet,
    export_subnet,
    is_up_to_date,
)
from ofa_tf.export.arena import arena_bytes
from ofa_tf.export.evaluation import Scores, random_batches
from ofa_tf.export.runtime import TFLiteClassifier
from ofa_tf.export.verification import compare, most_accurate
from ofa_tf.files import scratch_folder
from ofa_tf.models import build_subnet
from ofa_tf.report import file_table


@pytest.fixture
def folder(smallest, tmp_path):
    """A copy of the smallest subnet's folder, to be spoiled."""
    return shutil.copytree(smallest.folder, tmp_path / "copy")


def models(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name in FORMATS.values()}


# -- what the card tells ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tflite_float32", "tflite_int8"])
def test_card_tells_how_far_a_file_is_from_keras(exported, name):
    entry = exported.card["files"][name]
    expected = exported.model.predict_on_batch(exported.images)
    found = TFLiteClassifier(exported.folder / FORMATS[name])(exported.images)
    deviation = np.abs(found - expected).max()
    assert entry["verified_images"] == len(exported.images)
    assert entry["keras_agreement"] == np.mean(found.argmax(1) == expected.argmax(1)) > 0.95
    assert entry["max_deviation"] == pytest.approx(deviation, rel=0.01)
    relative = deviation / np.abs(expected).max()
    assert entry["relative_deviation"] == pytest.approx(relative, rel=0.01)
    drop = np.mean(expected.argmax(1) == exported.labels) - entry["accuracy"]
    assert entry["accuracy_drop"] == pytest.approx(drop)


def test_card_compares_with_the_supernet(exported):
    files = exported.card["files"]
    assert files["keras"]["supernet_agreement"] >= 0.99
    assert files["tflite_int8"]["supernet_agreement"] > 0.95


def test_agreement_with_the_supernet_is_counted():
    outputs = np.eye(4, dtype=np.float32)
    scores = Scores(outputs, np.arange(4), None)
    entry = compare(scores, Scores(2 * outputs, np.arange(4), None), np.array([0, 1, 3, 2]))
    assert entry == {
        "verified_images": 4,
        "keras_agreement": 1.0,
        "max_deviation": 1.0,
        "relative_deviation": 0.5,
        "supernet_agreement": 0.5,
    }


@pytest.mark.parametrize("name", ["tflite_float32", "tflite_int8"])
def test_card_tells_what_the_delegate_takes(exported, name):
    entry = exported.card["files"][name]
    told = mobile_bench.delegation(exported.folder / FORMATS[name])
    assert (entry["ops"], entry["delegate_partitions"]) == (told.ops, told.partitions)
    assert entry["ops"] > len(exported.spec.plan.blocks)
    assert entry["delegate_partitions"] == 1
    assert entry["ops_outside"] == {}


def test_delegation_of_a_damaged_file(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"TFL3")
    with pytest.raises(mobile_bench.FailureError, match=r"a\.tflite"):
        mobile_bench.delegation(tmp_path / "a.tflite")


def test_arena_holds_what_is_alive_at_a_time(tmp_path):
    """The input, which the runtime keeps, and two more; what comes last is put over the second."""
    image = outputs = keras.Input((32, 32, 4), batch_size=1)
    for _ in range(3):  # 16 x 16, 8 x 8, 4 x 4 pixels
        outputs = keras.layers.MaxPooling2D()(outputs)
    path = tmp_path / "pools.tflite"
    path.write_bytes(convert(keras.Model(image, outputs), "float32"))
    assert arena_bytes(path) == 4 * 4 * (32**2 + 16**2 + 8**2)


def test_arena_has_no_weights(tmp_path):
    """Not even those that the runtime unpacks from float16."""
    image = keras.Input((1, 1, 1000), batch_size=1)
    model = keras.Model(image, keras.layers.Conv2D(16, 1)(image))
    for precision in ("float32", "float16"):
        path = tmp_path / f"{precision}.tflite"
        path.write_bytes(convert(model, precision))
        assert 4 * 1016 <= arena_bytes(path) < 4 * 1016 + 1000


def test_arena_of_a_damaged_file(tmp_path):
    with pytest.raises(FailureError, match=r"missing\.tflite does not run"):
        arena_bytes(tmp_path / "missing.tflite")


# -- thresholds -------------------------------------------------------------------------------


def test_file_that_fails_is_no_file(smallest, supernet, folder):
    """Calibrated on images without light, int8 cannot tell the classes apart."""
    (folder / FORMATS["tflite_int8"]).unlink()
    options = {"calibration_images": 0 * smallest.images, "test_batches": smallest.batches}
    pattern = r"model_int8\.tflite is not made: on 120 images .* 0\.\d+, less than --min_agreement="
    with pytest.raises(FailureError, match=pattern):
        export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder, **options)
    assert models(folder) == {"model.keras", "model_float32.tflite"}
    assert set(json.loads((folder / "card.json").read_text())["files"]) == set(EXPORTED[:2])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    accepted = export_subnet(
        cut_out(supernet, smallest.spec),
        smallest.spec,
        folder,
        thresholds=Thresholds(min_agreement=0.0),
        **options,
    )
    assert accepted["files"]["tflite_int8"]["keras_agreement"] < 0.8


def test_files_of_before_must_reach_stricter_thresholds(smallest, supernet, folder):
    card = json.loads((folder / "card.json").read_text())
    card["files"]["tflite_int8"]["accuracy_drop"] = 0.02
    (folder / "card.json").write_text(json.dumps(card))
    strict, loose = Thresholds(max_accuracy_drop=1.9), Thresholds(max_accuracy_drop=2.1)
    assert is_up_to_date(smallest.spec, folder, EXPORTED, evaluated=True, thresholds=loose)
    assert not is_up_to_date(smallest.spec, folder, EXPORTED, evaluated=True, thresholds=strict)
    export_subnet(  # looks again, and finds that it is fine
        cut_out(supernet, smallest.spec),
        smallest.spec,
        folder,
        test_batches=smallest.batches,
        thresholds=strict,
    )
    assert is_up_to_date(smallest.spec, folder, EXPORTED, evaluated=True, thresholds=strict)
    unreachable = Thresholds(min_agreement=1.01)
    with pytest.raises(FailureError) as caught:
        export_subnet(
            cut_out(supernet, smallest.spec),
            smallest.spec,
            folder,
            test_batches=smallest.batches,
            supernet_classes=supernet_classes(supernet, smallest.spec, smallest.images),
            thresholds=unreachable,
        )
    assert all(FORMATS[name] in str(caught.value) for name in EXPORTED)
    assert models(folder) == set()


def test_accuracy_drop_is_in_points():
    entry = {"verified_images": 9, "keras_agreement": 1.0, "num_images": 99, "accuracy_drop": 0.03}
    assert Thresholds(max_accuracy_drop=3.1).problem("tflite_int8", entry) is None
    assert Thresholds().problem("tflite_int8", entry) is None
    problem = Thresholds(max_accuracy_drop=2.5).problem("tflite_int8", entry)
    assert "on 99 test images its accuracy is 3.00 points below" in problem
    assert "--max_accuracy_drop=2.5" in problem


# -- interfaces -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "formats"),
    [
        ({"input": "uint8", "output": "softmax", "batch_size": 7}, ("saved_model", "tflite_int8")),
        ({"input": "float32", "form": "plain"}, ("tflite_float16", "tflite_dynamic")),
    ],
)
def test_files_of_other_interfaces_agree(smallest, supernet, tmp_path, changes, formats):
    interface = Interface(
        smallest.spec.interface.normalization,
        changes.pop("input"),
        changes.pop("output", "logits"),
    )
    spec = dataclasses.replace(smallest.spec, interface=interface, **changes)
    assert not is_up_to_date(spec, smallest.folder, ["keras"])
    card = export_subnet(
        cut_out(supernet, spec),
        spec,
        tmp_path,
        formats=formats,
        calibration_images=smallest.images[:64],
        test_batches=smallest.batches,
        verify_images=60,
    )
    for name in formats:
        entry = card["files"][name]
        assert entry["keras_agreement"] > 0.95
        assert entry["accuracy"] > 0.95
        assert (entry["verified_images"], entry["num_images"]) == (60, 120)
    assert card["input"]["shape"][0] == spec.batch_size
    assert card["input"]["dtype"] == ("uint8" if interface.input == "uint8" else "float32")
    assert card["input"]["normalization"]["inside_model"] == (interface.input != "float32")
    assert card["output"]["name"] == interface.output_name
    assert card["form"] == spec.form


def test_without_images_random_ones_are_compared(smallest, supernet, folder):
    (folder / FORMATS["tflite_float32"]).unlink()
    options = {"formats": EXPORTED[:2], "verify_images": 30}
    card = export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder, **options)
    entry = card["files"]["tflite_float32"]
    assert (entry["verified_images"], entry["keras_agreement"]) == (30, 1.0)
    assert "accuracy" not in entry
    assert "accuracy" in card["files"]["keras"]  # of before


def test_random_images():
    (first, labels), (second, _) = random_batches(20, 130)
    assert labels is None
    assert (first.shape, second.shape) == ((100, 20, 20, 3), (30, 20, 20, 3))
    assert first.min() >= 0
    assert first.max() <= 255
    assert len({image.tobytes() for image in (*first, *second)}) == 130
    np.testing.assert_array_equal(first, random_batches(20, 130)[0][0])
    assert not np.array_equal(first, random_batches(20, 130, seed=1)[0][0])


# -- other people's files, full disks ---------------------------------------------------------


def test_replaced_keras_file_is_made_again(smallest, supernet, folder):
    path = folder / FORMATS["keras"]
    path.write_bytes(b"not Keras")
    export_subnet(
        cut_out(supernet, smallest.spec),
        smallest.spec,
        folder,
        formats=["keras"],
        test_batches=smallest.batches,
    )
    expected = smallest.model.predict_on_batch(smallest.images[:4])
    found = keras.models.load_model(path).predict_on_batch(smallest.images[:4])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", ["another network", "not Keras", "several outputs"])
def test_wrong_keras_file_that_the_card_knows_is_named(which, exports, supernet, folder):
    spec, path = exports["min"].spec, folder / FORMATS["keras"]
    if which == "not Keras":
        path.write_bytes(b"not Keras")
    elif which == "several outputs":
        build_subnet(spec.plan, head="features").save(path)
    else:
        shutil.copy(exports["max"].folder / FORMATS["keras"], path)
    card = json.loads((folder / "card.json").read_text())
    content = path.read_bytes()
    card["files"]["keras"]["sha256"] = hashlib.sha256(content).hexdigest()
    card["files"]["keras"]["bytes"] = len(content)
    (folder / "card.json").write_text(json.dumps(card))
    (folder / FORMATS["tflite_float32"]).unlink()
    why = {
        "not Keras": "could not be loaded as a Keras model: ",
        "several outputs": "is another network: its output ",
        "another network": "is another network: its ",
    }[which]
    with pytest.raises(FailureError, match=rf"model\.keras cannot be loaded .*{why}.* Remove it"):
        export_subnet(cut_out(supernet, spec), spec, folder)


@pytest.mark.parametrize("name", ["keras", "saved_model", "tflite_float32"])
def test_disk_that_is_full_after_half_a_file(name, smallest, supernet, tmp_path, monkeypatch):
    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def save_half(module, folder, **_):
        pathlib.Path(folder).mkdir()
        write_half(pathlib.Path(folder, "saved_model.pb"), b"half of it")

    target = tmp_path / "new"
    options = {"verify_images": 10}
    monkeypatch.setattr("tensorflow.saved_model.save", save_half)
    export_subnet(
        cut_out(supernet, smallest.spec), smallest.spec, target, formats=["keras"], **options
    ) if name != "keras" else target.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("ofa_tf.export.subnet.write_bytes", lambda *_: None)  # labels and so on
        patched.setattr(pathlib.Path, "write_bytes", write_half)
        with pytest.raises(FailureError, match=f"{FORMATS[name]}.* could not be written: No space"):
            export_subnet(
                cut_out(supernet, smallest.spec),
                smallest.spec,
                target,
                formats=[name],
                **options,
            )
    assert models(target) == ({"model.keras"} - {FORMATS[name]})
    assert not [path for path in target.iterdir() if path.name.startswith(".")]


def test_trained_file_is_made_again_for_other_settings(smallest, supernet, folder):
    """Training itself is tested in test_qat.py; here its result is the int8 file."""
    content, trained = (folder / FORMATS["tflite_int8"]).read_bytes(), []

    def make(settings):
        def train(model):
            trained.append(model.name)
            return content, [{"epoch": 0, "validation_accuracy": 0.5}]

        return export_subnet(
            cut_out(supernet, smallest.spec),
            smallest.spec,
            folder,
            formats=[*EXPORTED, "tflite_qat"],
            calibration_images=smallest.images,
            test_batches=smallest.batches,
            qat=Qat(settings, train, smallest.batches),
        )

    first = make({"epochs": 1})
    assert make({"epochs": 1}) == first
    assert len(trained) == 1
    entry = make({"epochs": 2})["files"]["tflite_qat"]
    assert len(trained) == 2
    assert entry["qat"] == {"epochs": 2}
    before, choice = entry["qat_history"]
    assert before == {"epoch": 0, "validation_accuracy": 0.5}
    assert choice["kept"] in choice["validation_accuracies"].keys() == {"trained", "post-training"}
    assert entry["keras_agreement"] > 0.95
    assert first["files"]["tflite_int8"] == smallest.card["files"]["tflite_int8"]


def test_trained_file_that_is_worse_than_int8_is_not_kept(smallest, supernet, folder):
    spec = smallest.spec

    def train(model):
        worse = random_subnet(spec.plan, spec.interface)
        return convert_subnet(worse, spec.plan, spec.interface, "int8", smallest.images[:8]), []

    card = export_subnet(
        cut_out(supernet, spec),
        spec,
        folder,
        formats=["keras", "tflite_qat"],
        calibration_images=smallest.images[:64],
        test_batches=smallest.batches,
        qat=Qat({"epochs": 1}, train, smallest.batches),
    )
    entry = card["files"]["tflite_qat"]
    (choice,) = entry["qat_history"]
    assert choice["kept"] == "post-training"
    accuracies = choice["validation_accuracies"]
    assert accuracies["trained"] < 0.5 < 0.9 < accuracies["post-training"]
    assert entry["accuracy"] == accuracies["post-training"]


def test_the_most_accurate_file_is_found(smallest):
    """By labels that are the classes of one of the files."""
    precisions = ("float32", "int8")
    paths = {p: smallest.folder / FORMATS[f"tflite_{p}"] for p in precisions}
    files = {p: path.read_bytes() for p, path in paths.items()}
    rng = np.random.default_rng(3)  # images between two kinds, on which the files differ
    images = smallest.images + rng.normal(0, 60, smallest.images.shape)
    images = images.clip(0, 255).astype(np.float32)
    for best in precisions:
        labels = TFLiteClassifier(paths[best])(images).argmax(-1)
        found = most_accurate(files, smallest.spec.interface, [(images, labels)])
        assert found[0] == best
        assert found[1][best] == 1 > min(found[1].values())
    assert (
        most_accurate(
            {"a": files["int8"], "b": files["int8"]}, smallest.spec.interface, [(images, labels)]
        )[0]
        == "a"
    )


def test_trained_file_needs_settings(smallest, supernet, tmp_path):
    with pytest.raises(UsageError, match="--qat_epochs"):
        export_subnet(
            cut_out(supernet, smallest.spec), smallest.spec, tmp_path, formats=["tflite_qat"]
        )


# -- the table --------------------------------------------------------------------------------


def test_table_of_files(exported):
    rows = [{"name": f"small {name}", **entry} for name, entry in exported.card["files"].items()]
    rows[2] |= {"ops_outside": {"PAD": 2, "MEAN": 1}, "arena_bytes": 12345}
    groups, heads, rule, keras_line, _, int8_line = file_table(rows).splitlines()
    assert groups.split() == ["------", "operations", "------", "same", "class", "as", "(%)"]
    assert re.split(r"\s{2,}", heads) == [
        "file",
        "size (kB)",
        "arena (kB)",
        "all",
        "outside",
        "partitions",
        "supernet",
        "Keras",
        "off by (%)",
        "accuracy (%)",
    ]
    assert set(rule) == {"-"}
    assert re.split(r"\s{2,}", keras_line)[2:6] == ["-"] * 4
    cells = re.split(r"\s{2,}", int8_line)
    entry = rows[2]
    assert cells[:3] == ["small tflite_int8", f"{entry['bytes'] / 1e3:.0f}", "12"]
    assert cells[3:6] == [str(entry["ops"]), "3", "1"]
    assert cells[7:] == [
        f"{100 * entry['keras_agreement']:.1f}",
        f"{100 * entry['relative_deviation']:.3f}",
        f"{100 * entry['accuracy']:.2f}",
    ]


def test_a_job_in_a_folder_that_tensorflow_takes_for_a_pattern(smallest, supernet, tmp_path):
    job = tmp_path / "run [v2]"
    with scratch_folder(job):
        card = export_subnet(
            cut_out(supernet, smallest.spec),
            smallest.spec,
            job / "subnets" / "a",
            formats=["saved_model", "tflite_float32"],
            test_batches=smallest.batches,
        )
    assert {file["keras_agreement"] for file in card["files"].values()} == {1.0}
