"""Exporting again: what is kept, what is made anew, and what is left when the disk refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import tempfile

import numpy as np
import pytest
from export_helpers import EXPORTED, cut_out, make_spec

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import FORMATS, check_formats, export_subnet, is_up_to_date, subnet, writing

FLOAT = ("keras", "tflite_float32")


@pytest.fixture
def folder(smallest, tmp_path):
    """A copy of an smallest folder, to be spoiled."""
    return shutil.copytree(smallest.folder, tmp_path / "copy")


@pytest.fixture
def converted(monkeypatch) -> list[str]:
    """The precisions that were converted; the files hold a stand-in, so nothing may read them."""
    calls = []

    def convert(model, plan, interface, precision, images, **_):
        calls.append(precision)
        return model.name.encode() + precision.encode()

    stand_in(monkeypatch, convert)
    return calls


def stand_in(monkeypatch, convert) -> None:
    """A converter whose files are not TFLite."""
    monkeypatch.setattr(writing, "convert_subnet", convert)
    monkeypatch.setattr(writing, "add_metadata", lambda content, spec: content)
    monkeypatch.setattr(writing, "TFLiteClassifier", _Described)
    monkeypatch.setattr(subnet, "Verifier", _Verifier)


class _Described:
    def __init__(self, path):
        assert path.read_bytes()

    def describe(self):
        return {"input": {}, "output": {}}


class _Verifier:
    def __init__(self, *_):
        pass

    def verify(self, name, path, folder):
        assert path.read_bytes()
        return {"verified_images": 1, "keras_agreement": 1.0}


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_up_to_date_files_are_kept(smallest, supernet, folder, converted):
    before = contents(folder)
    assert is_up_to_date(smallest.spec, folder, EXPORTED, evaluated=True)
    card = export_subnet(
        cut_out(supernet, smallest.spec), smallest.spec, folder, test_batches=smallest.batches
    )
    assert card == smallest.card
    assert contents(folder) == before
    assert converted == []


def test_only_a_damaged_file_is_made_again(smallest, supernet, folder, converted):
    path = folder / FORMATS["tflite_float32"]
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_up_to_date(smallest.spec, folder, ["tflite_float32"])
    assert is_up_to_date(smallest.spec, folder, ["keras", "tflite_int8"])
    card = export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder)
    assert converted == ["float32"]
    assert card["files"]["keras"] == smallest.card["files"]["keras"]
    assert "accuracy" not in card["files"]["tflite_float32"]


def test_kept_keras_file_decides_the_weights(smallest, supernet, folder, monkeypatch):
    (folder / FORMATS["tflite_float32"]).unlink()
    seen = []
    stand_in(monkeypatch, lambda model, *_, **__: seen.append(model) or b"file")
    with supernet.kept_statistics():
        for variable in supernet.non_trainable_variables:  # as another recalibration leaves them
            variable.assign(variable * 1.1)
        export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder, formats=FLOAT)
    expected = smallest.model.predict_on_batch(smallest.images[:4])
    np.testing.assert_allclose(seen[0].predict_on_batch(smallest.images[:4]), expected, rtol=1e-5)


@pytest.mark.parametrize("changes", [{"fingerprint": "weights 2"}, {"class_names": ("x",) * 10}])
def test_other_subnets_files_are_replaced_or_removed(
    smallest, supernet, folder, converted, changes
):
    spec = dataclasses.replace(smallest.spec, **changes)
    assert not is_up_to_date(spec, folder, ["keras"])
    card = export_subnet(cut_out(supernet, spec), spec, folder, formats=FLOAT)
    assert converted == ["float32"]
    assert set(card["files"]) == set(FLOAT)
    assert not (folder / FORMATS["tflite_int8"]).exists()
    assert json.loads((folder / "card.json").read_text()) == card


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"files": 3}', None])
def test_without_a_card_all_is_made(smallest, supernet, folder, converted, content):
    (folder / "card.json").unlink()
    if content is not None:
        (folder / "card.json").write_bytes(content)
    export_subnet(
        cut_out(supernet, smallest.spec), smallest.spec, folder, calibration_images=smallest.images
    )
    assert converted == ["float32", "int8"]


def test_missing_labels_are_written_again(smallest, supernet, folder, converted):
    (folder / "labels.txt").unlink()
    assert not is_up_to_date(smallest.spec, folder, FLOAT)
    export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder)
    assert contents(folder)["labels.txt"] == contents(smallest.folder)["labels.txt"]
    assert converted == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_old_files_whole(smallest, supernet, folder, converted, call, monkeypatch):
    before = contents(folder)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = dataclasses.replace(smallest.spec, fingerprint="weights 2", class_names=("x",) * 10)
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(FailureError, match="No space left on device"):
        export_subnet(cut_out(supernet, spec), spec, folder, formats=FLOAT)
    assert contents(folder) == before


def test_full_disk_in_the_middle(smallest, supernet, tmp_path, converted, monkeypatch):
    """The third model does not fit: the first two are whole, in the card, and kept next time."""
    folder, replace = tmp_path / "new", os.replace

    def refuse_int8(source, target):
        if str(target).endswith(FORMATS["tflite_int8"]):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_int8)
    options = {"calibration_images": smallest.images}
    with pytest.raises(FailureError, match=r"model_int8\.tflite could not be written: No space"):
        export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder, **options)
    names = {"arch.json", "labels.txt", "net.config", "run.config", "card.json"}
    names |= {FORMATS[name] for name in FLOAT}
    assert set(contents(folder)) == names
    assert is_up_to_date(smallest.spec, folder, FLOAT)
    monkeypatch.setattr(os, "replace", replace)
    export_subnet(cut_out(supernet, smallest.spec), smallest.spec, folder, **options)
    assert converted == ["float32", "int8", "int8"]


def test_full_temporary_folder_is_one_failure(smallest, supernet, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(FailureError, match="temporary folder: No space left on device"):
        export_subnet(cut_out(supernet, smallest.spec), smallest.spec, tmp_path, formats=["keras"])
    assert not (tmp_path / FORMATS["keras"]).exists()


def test_unknown_format():
    with pytest.raises(UsageError, match=f"{', '.join(FORMATS)}; unknown: onnx"):
        check_formats(["keras", "onnx"])
    with pytest.raises(UsageError, match="formats are some of"):
        check_formats([])
    assert check_formats(["tflite_int8", "keras", "keras"]) == ("keras", "tflite_int8")


def test_int8_without_images_keeps_what_was_made(smallest, supernet, tmp_path):
    with pytest.raises(UsageError, match="calibration images"):
        export_subnet(
            cut_out(supernet, smallest.spec),
            smallest.spec,
            tmp_path,
            formats=["keras", "tflite_int8"],
        )
    assert is_up_to_date(smallest.spec, tmp_path, ["keras"])


def test_refused_specs(supernet, tmp_path):
    arch = supernet.space.min()
    with pytest.raises(UsageError, match="slash"):
        make_spec(arch, name="a/b")
    with pytest.raises(UsageError, match="resolution"):
        make_spec(dataclasses.replace(arch, resolution=33))
    with pytest.raises(UsageError, match="has 10 outputs, but there are 3 class names"):
        dataclasses.replace(make_spec(arch), class_names=("a", "b", "c"))
    other = make_spec(supernet.space.max())
    with pytest.raises(UsageError, match=r"another network: its input are \(24, 24, 3\)"):
        export_subnet(cut_out(supernet, make_spec(arch)), other, tmp_path)
