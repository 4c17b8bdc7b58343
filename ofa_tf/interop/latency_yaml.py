"""Published latency tables: YAML files of block latencies, one for each input resolution.

An entry is `expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:3-stride:2-idskip:0
-se:0-hs:0` (on one line) with a `mean` in ms. That is the MobileNetV3 form. In the ProxylessNAS
form, expand is the ratio instead of the middle width, se and hs are absent, and Logits is
everything after Conv_1.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ofa_tf.errors import UsageError
from ofa_tf.fields import is_number
from ofa_tf.interop.yaml_text import read_yaml_text
from ofa_tf.spaces import SearchSpace, get_space, list_spaces
from ofa_tf.spaces.blueprint import Block, InvertedResidual

_NUM_NAMED = 3  # missing keys that an error names
_MOST_BYTES = 10_000_000  # of a file; those that are published have 15 thousand
_MOST_MS = 1e7  # nearly three hours, which no block takes

# The published names of the layers before and after the blocks.
_MOBILENET_V3 = {
    "stem": "Conv",
    "final_expand": "Conv_1",
    "pool": "AvgPool2D",
    "feature_mix": "Conv_2",
    "classifier": "Logits",
}
_PROXYLESS = {"stem": "Conv", "feature_mix": "Conv_1", "classifier": "Logits"}


class PublishedLatencies(NamedTuple):
    """What published files say about the blocks of a space.

    Args:
        space: the space, restricted to the resolutions from the least to the largest file's.
        num_classes: classes of the networks.
        latencies: ms by resolution (pixels, ascending) and `Block.key`; 0 where another block's
            latency includes it.
    """

    space: SearchSpace
    num_classes: int
    latencies: dict[int, dict[str, float]]


class _File(NamedTuple):
    path: pathlib.Path
    resolution: int
    num_classes: int
    means: dict[str, float]  # ms by published key


def read_latency_tables(path: pathlib.Path, space: SearchSpace | None = None) -> PublishedLatencies:
    """Reads one published file, or a folder's `*_lookup_table.yaml`.

    Args:
        path: the file or the folder.
        space: the space whose blocks are looked up; None for the built-in one that has all of
            its blocks in the files.

    Raises:
        UsageError: no file, a damaged or foreign one, a `mean` that is missing or no positive
            number, or missing blocks; names the file and the keys.
    """
    files = _read_files(path)
    resolutions = [file.resolution for file in files]
    spaces = [space] if space else [get_space(name) for name in list_spaces()]
    nearest: tuple[str, list[str]] | None = None
    for candidate in spaces:
        if not set(resolutions) <= set(candidate.root.resolutions):
            continue
        latencies, missing = _look_up(candidate, files)
        if not missing:
            for file in files:
                _check_one_resolution(file, filter(None, _published_keys(candidate, file).values()))
            restricted = _within(candidate, resolutions, path)
            return PublishedLatencies(restricted, files[0].num_classes, latencies)
        if nearest is None or len(missing) < len(nearest[1]):
            nearest = (candidate.name, missing)
    if nearest is None:
        raise UsageError(
            f"{path} is for {resolutions} pixels, which are not all in "
            f"{space.name if space else 'any known space'}."
        )
    name, missing = nearest
    raise UsageError(
        f"{path} is no latency table of {'' if space else 'a known space; the nearest is '}{name}: "
        f"{len(missing)} blocks are missing: {', '.join(missing[:_NUM_NAMED])}."
    )


def _within(space: SearchSpace, resolutions: Sequence[int], path: pathlib.Path) -> SearchSpace:
    """The space between the least and the largest of some resolutions."""
    low, high = min(resolutions), max(resolutions)
    kept = [side for side in space.resolutions if low <= side <= high]
    if not kept:
        raise UsageError(
            f"{path} is for {low} to {high} pixels, not for {list(space.resolutions)}."
        )
    return space.restrict(resolutions=kept)


def _read_files(path: pathlib.Path) -> list[_File]:
    """The files by ascending resolution."""
    paths = sorted(path.glob("*_lookup_table.yaml")) if path.is_dir() else [path]
    if not paths:
        raise UsageError(f"{path} has no file that is called *_lookup_table.yaml.")
    files = sorted(map(_read_file, paths), key=lambda file: file.resolution)
    for file, other in itertools.pairwise(files):
        if file.resolution == other.resolution or file.num_classes != other.num_classes:
            raise UsageError(
                f"{path} has files that are not one table: {file.path.name} is for "
                f"{file.resolution} pixels and {file.num_classes} classes, {other.path.name} for "
                f"{other.resolution} and {other.num_classes}."
            )
    return files


def _read_file(path: pathlib.Path) -> _File:
    import yaml

    try:
        content = yaml.load(read_yaml_text(path, _MOST_BYTES), _strict_loader())
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split()).rstrip(".")  # YAML's errors have several lines
        raise UsageError(f"The latency table {path} cannot be read: {said}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no latency table: it has no entries by block.")
    means = {str(key): _mean(path, key, entry) for key, entry in content.items()}
    return _File(
        path,
        _number_in(path, means, r"Conv-input:(\d+)x\1x3-output:.*", "Conv-input:224x224x3"),
        _number_in(path, means, r"Logits-input:.*-output:(\d+)", "Logits-...-output:1000"),
        means,
    )


@functools.cache
def _strict_loader() -> type:
    """A safe loader that refuses a key that is there twice, where YAML's own takes the last."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the former is compiled
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    raise ValueError(
                        f"line {key.start_mark.line + 1}: {key.value:.200} is there twice"
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader


def _mean(path: pathlib.Path, key: Any, entry: Any) -> float:
    mean = entry.get("mean") if isinstance(entry, dict) else None
    if not (is_number(mean) and 0 < mean <= _MOST_MS):
        raise UsageError(
            f"The latency table {path} needs a mean that is a positive number of ms, up to "
            f"{_MOST_MS:g}, at {key!r:.200}, not {mean!r:.80}."
        )
    return float(mean)


def _number_in(path: pathlib.Path, means: Mapping[str, float], pattern: str, like: str) -> int:
    """The number in the one key of that pattern."""
    numbers = [int(match[1]) for match in map(re.compile(pattern).fullmatch, means) if match]
    if len(numbers) > 1:
        raise UsageError(
            f"{path} is not the latency table of one resolution and one number of classes: it has "
            f"{len(numbers)} keys like {like}, for {' and '.join(map(str, sorted(numbers)))}."
        )
    if not numbers:
        raise UsageError(f"{path} is no latency table: it has no key like {like}.")
    return numbers[0]


def _check_one_resolution(file: _File, needed: Iterable[str]) -> None:
    """Raises UsageError where a block that a network needs is there at another size as well.

    Args:
        file: what was read.
        needed: its keys that networks of its resolution have.
    """
    needed = set(needed)
    sizes = {_without_sizes(key): key for key in needed}
    for key in file.means:
        if key not in needed and _without_sizes(key) in sizes:
            raise UsageError(
                f"{file.path} mixes two resolutions: a network of {file.resolution} pixels has "
                f"{sizes[_without_sizes(key)]}, and there is {key} as well."
            )


def _without_sizes(key: str) -> str:
    """A published key without feature sizes: `input:14x14x40` becomes `input:40`."""
    return re.sub(r":\d+x\d+x(\d+)", r":\1", key)


def _look_up(
    space: SearchSpace, files: Sequence[_File]
) -> tuple[dict[int, dict[str, float]], list[str]]:
    """The latencies of all blocks of a space by resolution, and the keys that are missing."""
    latencies: dict[int, dict[str, float]] = {}
    missing = []
    for file in files:
        found = latencies[file.resolution] = {}
        for key, published in _published_keys(space, file).items():
            if published is None:
                found[key] = 0.0
            elif published in file.means:
                found[key] = file.means[published]
            else:
                missing.append(f"{published} in {file.path.name}")
    return latencies, missing


def _published_keys(space: SearchSpace, file: _File) -> dict[str, str | None]:
    """How the form of a file spells each block of a space; None for what another includes."""
    is_mobilenet_v3 = any("-se:" in key for key in file.means)
    keys: dict[str, str | None] = {}
    for _, plan in space.covering_plans(file.num_classes, [file.resolution]):
        for block, previous in zip(plan.blocks, (None, *plan.blocks), strict=False):
            if block.key not in keys:
                spell = _mobilenet_v3_key if is_mobilenet_v3 else _proxyless_key
                keys[block.key] = spell(block, previous)
    return keys


def _mobilenet_v3_key(block: Block, previous: Block | None) -> str:
    if isinstance(block, InvertedResidual):
        return (
            f"{_block_key(block, block.mid_channels)}-se:{int(block.se_channels > 0)}"
            f"-hs:{int(block.activation == 'hard_swish')}"
        )
    output = block.out_channels if block.name == "classifier" else _out_shape(block)
    # What no published table has is missing under our own key.
    layer = _MOBILENET_V3.get(block.name)
    return f"{layer}-input:{_in_shape(block)}-output:{output}" if layer else block.key


def _proxyless_key(block: Block, previous: Block | None) -> str | None:
    if isinstance(block, InvertedResidual):
        return _block_key(block, round(block.mid_channels / block.in_channels))
    if block.name == "pool":
        return None
    layer = _PROXYLESS.get(block.name)
    if layer == "Logits":
        return f"{layer}-input:{_in_shape(previous)}-output:{block.out_channels}"
    return f"{layer}-input:{_in_shape(block)}-output:{_out_shape(block)}" if layer else block.key


def _block_key(block: InvertedResidual, expand: int) -> str:
    return (
        f"expanded_conv-input:{_in_shape(block)}-output:{_out_shape(block)}-expand:{expand}"
        f"-kernel:{block.kernel_size}-stride:{block.stride}-idskip:{int(block.shortcut)}"
    )


def _in_shape(block: Block) -> str:
    return f"{block.in_size}x{block.in_size}x{block.in_channels}"


def _out_shape(block: Block) -> str:
    return f"{block.out_size}x{block.out_size}x{block.out_channels}"
