"""YAML of others, looked through before a parser takes it: PyYAML knows no bounds.

Its parsers go down one call for each level of nesting, the compiled one until the process dies.
"""

from __future__ import annotations

import os
import pathlib

MAX_NESTING = 20  # ours and published files have three levels


def read_yaml_text(path: str | os.PathLike, most_bytes: int, with_aliases: bool = False) -> bytes:
    """The content of a YAML file whose values a parser can take.

    Args:
        path: the file.
        most_bytes: that it may have.
        with_aliases: whether a value may stand for another; then small files can have many.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, is nested too deeply, or has a tag or an alias.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    with open(pathlib.Path(path), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    depth = 0
    for event in yaml.parse(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_NESTING:
                raise ValueError(f"{line}: it is nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"{line}: there is a tag, {event.tag:.80}, which cannot be read")
        if isinstance(event, yaml.AliasEvent) and not with_aliases:
            raise ValueError(f"{line}: there is an alias, *{event.anchor:.80}, of another value")
    return content
