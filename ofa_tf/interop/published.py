"""Where the authors of Once-for-All publish their networks, and how to download them.

A download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request
from typing import BinaryIO

from tqdm import tqdm

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.spaces import get_space

_BASE = "https://raw.githubusercontent.com/han-cai/files/master/ofa"
_DRIVE = "https://drive.google.com/uc?export=download&confirm=t"
_CHECKPOINTS = {
    "ofa_mbv3_w1.0": "{base}/ofa_nets/ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_w1.2": "{base}/ofa_nets/ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless_w1.3": "{base}/ofa_nets/ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50": "{drive}&id=1xy6VIPEHXqbbqNu3xEZUxhp5FbTVs5cQ",
}
_TIMEOUT_S = 60.0  # without a byte from the server
_CHUNK = 1 << 18  # bytes


def download_checkpoint(space_name: str, folder: str | os.PathLike | None = None) -> pathlib.Path:
    """The published checkpoint of a supernet, downloaded unless it is there already.

    Args:
        space_name: id of the space; the published long ids are known too.
        folder: where the file is put; by default `.cache/ofa_tf` in the home folder.

    Returns: the path of the file.

    Raises:
        UsageError: the space is unknown, or no checkpoint of it is published.
        FailureError: the file cannot be had, e.g. offline. What has come of it is kept beside it,
            and the next call goes on from there.
    """
    name = get_space(space_name).name
    if name not in _CHECKPOINTS:
        raise UsageError(
            f"No checkpoint of {name} is published; there are those of {', '.join(_CHECKPOINTS)}."
        )
    path = _folder(folder) / f"{name}.pth"
    _fetch(_CHECKPOINTS[name].format(base=_BASE, drive=_DRIVE), path, f"The checkpoint of {name}")
    return path


def download_specialized(
    net_id: str, folder: str | os.PathLike | None = None
) -> tuple[pathlib.Path, pathlib.Path]:
    """A published specialized network, downloaded unless it is there already.

    Args:
        net_id: its published id, e.g. "note10_lat@8ms_top1@71.4_finetune@25", or with dashes.
        folder: where a folder with that name is put; as in `download_checkpoint`.

    Returns: the paths of its `net.config`, with the `run.config` beside it, and of its `init`.

    Raises:
        UsageError: that can be no id.
        FailureError: a file cannot be had, e.g. offline or because there is no such id.
    """
    net_id = net_id.replace("@", "-")
    if not re.fullmatch(r"\w[\w.-]*", net_id):
        raise UsageError(
            f"{net_id!r} is no id of a published network; one is, for example, "
            "note10_lat@8ms_top1@71.4_finetune@25."
        )
    own = _folder(folder) / net_id
    for name in ("net.config", "run.config", "init"):
        address = f"{_BASE}/ofa_specialized/{net_id}/{name}"
        _fetch(address, own / name, f"{name} of the network {net_id}")
    return own / "net.config", own / "init"


def _folder(folder: str | os.PathLike | None) -> pathlib.Path:
    return pathlib.Path.home() / ".cache" / "ofa_tf" if folder is None else pathlib.Path(folder)


def _fetch(address: str, path: pathlib.Path, what: str) -> None:
    """Downloads a file that is not there yet, by way of a part beside it.

    Beside the part is the version that it is of, as the server told it; a part without one is of
    no use, since the file may have changed.
    """
    if os.path.exists(path):
        return
    import fcntl  # not on Windows, where all else of this package works

    part, version = (path.with_name(f"{path.name}.part{end}") for end in ("", "_version"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # wait while another process downloads it
            if not path.exists():
                _download(address, file, version)
                _check(part, version)
                os.replace(part, path)
                version.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        problem = error.reason if type(error) is urllib.error.URLError else error
        goes_on = " The same call goes on where it stopped." if _is_of_use(part, version) else ""
        raise FailureError(
            f"{what} could not be downloaded from {address}: {problem or type(error).__name__}."
            f"{goes_on} A file that you have already can be given by its path instead."
        ) from error
    finally:
        if not _is_of_use(part, version):
            for left in (part, version):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)


def _is_of_use(part: pathlib.Path, version: pathlib.Path) -> bool:
    return os.path.exists(version) and os.path.exists(part) and os.path.getsize(part) > 0


def _download(address: str, file: BinaryIO, version: pathlib.Path) -> None:
    """Appends to a part what is missing of it. Raises OSError where that is not all."""
    known = version.read_text() if version.exists() else None
    offset = file.seek(0, os.SEEK_END)
    with _answer(address, offset, known) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            offset = 0
            version.unlink(missing_ok=True)
            if told := _version(response):
                version.write_text(told)
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        name = os.path.basename(file.name)
        with tqdm(desc=name, total=total, initial=offset, unit="B", unit_scale=True) as bar:
            done = offset
            while done != total and (chunk := response.read1(_CHUNK)):
                done += file.write(chunk)
                bar.update(len(chunk))
    if total not in (None, done):
        raise OSError(f"the connection broke after {done} of {total} bytes")
    file.flush()
    os.fsync(file.fileno())


def _answer(address: str, offset: int, known: str | None) -> http.client.HTTPResponse:
    """The rest of a file from an offset (status 206) if it is of the known version, else all."""
    if offset and known:
        headers = {"Range": f"bytes={offset}-", "If-Range": known}
        try:
            response = _open(urllib.request.Request(address, headers=headers))
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
        else:
            begins = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            is_rest = begins and _version(response) in (known, None)
            if response.status != http.HTTPStatus.PARTIAL_CONTENT or is_rest:
                return response
            response.close()
    return _open(urllib.request.Request(address))


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    return urllib.request.urlopen(request, timeout=_TIMEOUT_S)


def _version(response: http.client.HTTPResponse) -> str | None:
    """What tells whether a file has changed; weak tags are not for parts of files."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _check(part: pathlib.Path, version: pathlib.Path) -> None:
    """Raises OSError for a whole download that is no file of tensors or settings."""
    with open(part, "rb") as file:
        start = file.read(64).lstrip()
    if not start or start.startswith(b"<"):
        version.unlink(missing_ok=True)  # so that nothing is kept of it
        raise OSError("the answer is a web page, not the file" if start else "the answer is empty")
