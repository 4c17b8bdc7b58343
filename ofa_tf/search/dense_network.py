"""DenseNetwork: the forward pass of an accuracy predictor, on arrays of encoded archs."""

from __future__ import annotations

import numpy as np

from ofa_tf.spaces import SearchSpace
from ofa_tf.spaces.search_space import OFF

_CHUNK = 1024  # archs at once; their hidden layers stay in the processor's cache
_MOST_ROWS = 256  # of the table of a group of columns, which stay there too

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]  # (kernel, bias) of each layer


class DenseNetwork:
    """Dense layers with ReLU between them, from `SearchSpace.one_hot` to one number, in float32.

    The features are not compared into being, one choice at a time, but looked up: a few columns of
    a code together are one row of a table. What the resolution adds to the first layer is looked
    up as well, together with its bias.

    Args:
        space: the space whose codes it takes.
        layers: (kernel, bias) of each layer; the first has a row for each feature of
            `space.one_hot`, the last has one output.
    """

    def __init__(self, space: SearchSpace, layers: Layers):
        (kernel, bias), *self._rest = [
            (np.asarray(kernel, np.float32), np.asarray(bias, np.float32))
            for kernel, bias in layers
        ]
        rows = _feature_rows(space)
        self._by_resolution = _by_resolution(space, kernel, bias, rows)
        groups = _groups(space, rows)
        width = max(sum(len(rows[column]) for column in group) for group in groups)
        self._features = np.zeros((len(groups) * _MOST_ROWS, width), np.float32)
        self._kernel = np.zeros((len(groups) * width, kernel.shape[1]), np.float32)
        self._strides = np.zeros((space.code_length, len(groups)), np.float32)
        self._starts = np.arange(len(groups), dtype=np.float32) * _MOST_ROWS
        for place, group in enumerate(groups):
            stride, used = 1, 0
            for column in group:
                num_choices = len(rows[column])
                # A table's rows count through the choices of its columns, each from OFF on.
                state = np.arange(_MOST_ROWS) // stride % (num_choices + 1) + OFF
                table = self._features[place * _MOST_ROWS :][:_MOST_ROWS]
                table[:, used : used + num_choices] = state[:, None] == np.arange(num_choices)
                self._kernel[place * width + used :][:num_choices] = kernel[rows[column]]
                self._strides[column, place] = stride
                self._starts[place] -= OFF * stride
                stride, used = stride * (num_choices + 1), used + num_choices

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Outputs for encoded archs: int (n, code length) -> float64 (n,).

        NaN at resolutions that the space does not have.
        """
        values = np.empty(len(codes))
        for start in range(0, len(codes), _CHUNK):
            part = slice(start, start + _CHUNK)
            hidden = self._first_layer(codes[part])
            for kernel, bias in self._rest:
                np.maximum(hidden, 0, out=hidden)
                hidden = hidden @ kernel
                hidden += bias
            values[part] = hidden[:, 0]
        return values

    def _first_layer(self, codes: np.ndarray) -> np.ndarray:
        # The product is of floats because that is many times as fast, and exact for such numbers.
        rows = (codes.astype(np.float32) @ self._strides + self._starts).astype(np.intp)
        hidden = self._features[rows].reshape(len(codes), -1) @ self._kernel
        hidden += self._by_resolution[codes[:, -1]]
        return hidden


def _feature_rows(space: SearchSpace) -> dict[int, np.ndarray]:
    """The rows of the first kernel that belong to each column of a code, one for each choice."""
    rows, start = {}, 0
    for columns, num_choices in space.one_hot_columns:
        for column in columns:
            rows[column] = np.arange(start, start + num_choices)
            start += num_choices
    return rows


def _by_resolution(
    space: SearchSpace, kernel: np.ndarray, bias: np.ndarray, rows: dict[int, np.ndarray]
) -> np.ndarray:
    """What each resolution of the unrestricted space adds to the first layer, bias included."""
    added = np.tile(bias, (len(space.root.resolutions), 1))
    column = space.columns["resolution"].start
    if column in rows:
        added += kernel[rows[column]]
    unknown = np.ones(len(added), bool)
    unknown[space.allowed("resolution")] = False
    added[unknown] = np.nan
    return added


def _groups(space: SearchSpace, rows: dict[int, np.ndarray]) -> list[list[int]]:
    """Columns with features, but for the resolution, in groups of few enough choices together."""
    groups, num_rows = [[]], 1
    for column in rows:
        if column == space.columns["resolution"].start:
            continue
        num_rows *= len(rows[column]) + 1
        if num_rows > _MOST_ROWS:
            groups.append([])
            num_rows = len(rows[column]) + 1
        groups[-1].append(column)
    return groups
