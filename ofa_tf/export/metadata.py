"""TFLite metadata: labels, image size and normalization inside a .tflite file.

Written straight to the format's FlatBuffers schema, because its published writers do not run
beside TensorFlow 2.21: tflite-support needs protobuf < 4 and mediapipe up to 0.10.21 NumPy < 2;
in later versions of mediapipe a part of the writer is missing. Their readers take the result.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ofa_tf.export.card import SubnetSpec
from ofa_tf.names import labels_text

BUFFER = "TFLITE_METADATA"  # the name by which readers find it
LABELS = "labels.txt"

# The tables of metadata_schema.fbs (file identifier M001) that are written here, each with its
# fields in the order of the schema, as far as the last one that is used.
TABLES = {
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "Content": ("content_properties_type", "content_properties"),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "AssociatedFile": ("name", "description", "type"),
}
_FILE_IDENTIFIER = b"M001"
_IMAGE_PROPERTIES, _NORMALIZATION_OPTIONS = np.uint8(2), np.uint8(1)  # members of unions
_RGB, _TENSOR_AXIS_LABELS = np.uint8(1), np.uint8(2)


class Table(NamedTuple):
    """A table of the schema; a field is a number, a text, a table, or a list."""

    kind: str
    fields: dict[str, Any]


def add_metadata(content: bytes, spec: SubnetSpec) -> bytes:
    """A .tflite file with metadata: what it takes and gives, the normalization, the labels.

    The labels are packed in as `labels.txt`: such a file is a zip archive too.

    Args:
        content: of a file with one input, images, and one output, a value per class.
        spec: the subnet that it was converted from.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_packed(_describe(spec), _FILE_IDENTIFIER), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")

    file = io.BytesIO(builder.Output())
    with zipfile.ZipFile(file, "a") as archive:  # the date is fixed: equal subnets, equal files
        archive.writestr(zipfile.ZipInfo(LABELS), labels_text(spec.class_names))
    return file.getvalue()


def _describe(spec: SubnetSpec) -> Table:
    graph = {"input_tensor_metadata": [_input(spec)], "output_tensor_metadata": [_output(spec)]}
    return Table(
        "ModelMetadata",
        {
            "name": spec.name,
            "description": f"Image classifier, {len(spec.class_names)} classes.",
            "subgraph_metadata": [Table("SubGraphMetadata", graph)],
            "min_parser_version": "1.0.0",  # older than all that is written here
        },
    )


def _input(spec: SubnetSpec) -> Table:
    side, interface = spec.plan.resolution, spec.interface
    # Of pixels from 0 to 255, before they go in.
    mean, std = interface.normalization if interface.input == "float32" else ((0.0,), (1.0,))
    options = Table("NormalizationOptions", {"mean": mean, "std": std})
    return Table(
        "TensorMetadata",
        {
            "name": "image",
            "description": f"RGB image of {side} x {side} pixels.",
            "content": _union("Content", "content_properties", _IMAGE_PROPERTIES, _image(side)),
            "process_units": [_union("ProcessUnit", "options", _NORMALIZATION_OPTIONS, options)],
        },
    )


def _output(spec: SubnetSpec) -> Table:
    name = spec.interface.output_name
    labels = {
        "name": LABELS,
        "description": "The classes, one in a line.",
        "type": _TENSOR_AXIS_LABELS,
    }
    return Table(
        "TensorMetadata",
        {
            "name": name,
            "description": f"The {name}, one per class.",
            "associated_files": [Table("AssociatedFile", labels)],
        },
    )


def _image(side: int) -> Table:
    size = Table("ImageSize", {"width": np.uint32(side), "height": np.uint32(side)})
    return Table("ImageProperties", {"color_space": _RGB, "default_size": size})


def _union(kind: str, field: str, member: np.uint8, table: Table) -> Table:
    """A table whose field may hold several kinds of tables, of which this is one."""
    return Table(kind, {f"{field}_type": member, field: table})


def _packed(table: Table, identifier: bytes) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, table), identifier)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: str | Table | Sequence) -> int:
    """Writes a value that is not a mere number; returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Table):
        return _write_table(builder, value)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    offsets = [_write(builder, item) for item in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _write_table(builder: flatbuffers.Builder, table: Table) -> int:
    fields = TABLES[table.kind]
    written = {  # tables do not nest in the buffer: what they refer to comes first
        name: value if isinstance(value, np.integer) else _write(builder, value)
        for name, value in table.fields.items()
    }
    builder.StartObject(len(fields))
    for name, value in written.items():
        slot = fields.index(name)
        if isinstance(value, np.uint8):
            builder.PrependUint8Slot(slot, int(value), 0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(slot, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()
