"""TFLite metadata: read back by its schema and by MediaPipe, and harmless to the file."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import number_types
from flatbuffers.table import Table

from ofa_tf.data import MEAN, STD
from ofa_tf.export import SubnetSpec, convert
from ofa_tf.export.interface import Interface
from ofa_tf.export.metadata import add_metadata
from ofa_tf.spaces import get_space

NAMES = ("apple", "pear", "größe")


@pytest.fixture(scope="module")
def plain() -> bytes:
    """A file of a network of three layers; its weights are not the spec's."""
    layers = [
        keras.layers.Input((24, 24, 3), name="image"),
        keras.layers.Conv2D(4, 3, 2),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(len(NAMES)),
    ]
    return convert(keras.Sequential(layers), "float32")


def make_spec(**interface) -> SubnetSpec:
    space = get_space("ofa_mbv3_tiny")
    return SubnetSpec(
        name="small",
        plan=space.blueprint(space.min(), len(NAMES)),
        class_names=NAMES,
        interface=Interface((MEAN, STD), **interface),
        fingerprint="weights 1",
    )


class Reader(Table):
    """A table by the numbers of its fields, as metadata_schema.fbs counts them."""

    def place(self, field: int) -> int:
        offset = self.Offset(4 + 2 * field)
        assert offset, f"field {field} is not there"
        return self.Pos + offset

    def text(self, field: int) -> str:
        return self.String(self.place(field)).decode()

    def number(self, field: int, flags=number_types.Uint8Flags) -> int:
        return self.Get(flags, self.place(field))

    def table(self, field: int) -> Reader:
        return Reader(self.Bytes, self.Indirect(self.place(field)))

    def only(self, field: int) -> Reader:
        """The one table in a vector."""
        offset = self.Offset(4 + 2 * field)
        assert self.VectorLen(offset) == 1
        return Reader(self.Bytes, self.Indirect(self.Vector(offset)))

    def floats(self, field: int) -> list[float]:
        offset = self.Offset(4 + 2 * field)
        return self.GetVectorAsNumpy(number_types.Float32Flags, offset).tolist()


def read(content: bytes) -> Reader:
    """The ModelMetadata of a file."""
    model = schema.ModelT.InitFromPackedBuf(content)
    (entry,) = (entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    packed = bytes(model.buffers[entry.buffer].data)
    assert packed[4:8] == b"M001"
    return Reader(packed, flatbuffers.encode.Get(flatbuffers.packer.uoffset, packed, 0))


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    signature = Interpreter(model_content=content).get_signature_runner("serving_default")
    return np.concatenate([signature(image=image[None])["logits"] for image in images])


def test_what_goes_in_and_comes_out(plain):
    spec = make_spec()
    model = read(add_metadata(plain, spec))
    assert (model.text(0), model.text(7)) == ("small", "1.0.0")
    graph = model.only(3)
    image, logits = graph.only(2), graph.only(3)

    assert image.text(0) == "image"
    side = spec.plan.resolution
    content = image.table(3)
    assert content.number(0) == 2  # ImageProperties
    assert content.table(1).number(0) == 1  # RGB
    size = content.table(1).table(1)
    assert [size.number(field, number_types.Uint32Flags) for field in (0, 1)] == [side, side]

    assert logits.text(0) == "logits"
    labels = logits.only(6)
    assert (labels.text(0), labels.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize(
    ("interface", "mean", "std"),
    [
        ({}, [0], [1]),
        ({"input": "uint8"}, [0], [1]),
        ({"input": "float32", "output": "softmax"}, MEAN, STD),
    ],
)
def test_normalization_that_is_left_to_the_app(interface, mean, std, plain):
    graph = read(add_metadata(plain, make_spec(**interface))).only(3)
    unit = graph.only(2).only(4)
    assert unit.number(0) == 1  # NormalizationOptions
    np.testing.assert_allclose(unit.table(1).floats(0), mean, rtol=1e-6)
    np.testing.assert_allclose(unit.table(1).floats(1), std, rtol=1e-6)
    assert graph.only(3).text(0) == ("probabilities" if "output" in interface else "logits")


def test_labels_are_packed_in(plain):
    with zipfile.ZipFile(io.BytesIO(add_metadata(plain, make_spec()))) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
        (entry,) = archive.infolist()
    assert entry.compress_type == zipfile.ZIP_STORED  # what the readers on phones know


def test_file_runs_as_before(plain):
    content = add_metadata(plain, make_spec())
    images = np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)
    expected = run(plain, images)
    assert np.ptp(expected, axis=0).min() > 0
    np.testing.assert_array_equal(run(content, images), expected)
    before, after = (schema.ModelT.InitFromPackedBuf(file) for file in (plain, content))
    names = [[entry.name for entry in model.metadata] for model in (before, after)]
    assert names[1] == [*names[0], b"TFLITE_METADATA"]
    assert len(content) - len(plain) < 1500


def test_equal_subnets_give_equal_files(plain):
    assert add_metadata(plain, make_spec()) == add_metadata(plain, make_spec())


def test_mediapipe_classifies_by_it(plain, tmp_path):
    mediapipe = pytest.importorskip("mediapipe")
    path = tmp_path / "model.tflite"
    path.write_bytes(add_metadata(plain, make_spec()))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    (logits,) = run(plain, pixels[None].astype(np.float32))
    vision = mediapipe.tasks.vision
    with vision.ImageClassifier.create_from_model_path(str(path)) as classifier:
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels)
        (found,) = classifier.classify(image).classifications
    scores = {category.category_name: category.score for category in found.categories}
    assert set(scores) == set(NAMES)
    np.testing.assert_allclose([scores[name] for name in NAMES], logits, rtol=1e-4)
