"""Where the authors of Once-for-All publish their networks, and how to download them.

A download that was cut off goes on where it stopped. One that is whole has to be the file that the
authors' repository has, as far as that is known, and its SHA-256 is kept beside it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import importlib.resources
import os
import pathlib
import re
import urllib.error
import urllib.request
from typing import Any, BinaryIO, NoReturn

from tqdm import tqdm

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.files import write_bytes
from ofa_tf.spaces import get_space

# The state of the authors' repository whose files published_files.txt lists with their hashes.
_COMMIT = "a7c9bcd525e17404968bc55aa43772bf7e51909e"
_BASE = f"https://raw.githubusercontent.com/han-cai/files/{_COMMIT}/ofa"
_DRIVE = "https://drive.google.com/uc?export=download&confirm=t"
_CHECKPOINTS = {
    "ofa_mbv3_w1.0": "ofa_nets/ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_w1.2": "ofa_nets/ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless_w1.3": "ofa_nets/ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50": "1xy6VIPEHXqbbqNu3xEZUxhp5FbTVs5cQ",  # the id of a file of _DRIVE
}
_TIMEOUT_S = 60.0  # without a byte from the server
_CHUNK = 1 << 18  # bytes
_MOST_BYTES = 1 << 30  # of a file; the largest that is published has a fifth of it


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
    place = _CHECKPOINTS[name]
    address = f"{_BASE}/{place}" if "/" in place else f"{_DRIVE}&id={place}"
    _fetch(address, path, f"The checkpoint of {name}", _known_hashes().get(place))
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
        place = f"ofa_specialized/{net_id}/{name}"
        what = f"{name} of the network {net_id}"
        _fetch(f"{_BASE}/{place}", own / name, what, _known_hashes().get(place))
    return own / "net.config", own / "init"


def _folder(folder: str | os.PathLike | None) -> pathlib.Path:
    return pathlib.Path.home() / ".cache" / "ofa_tf" if folder is None else pathlib.Path(folder)


@functools.cache
def _known_hashes() -> dict[str, str]:
    """Git's hash of each file of the authors' repository, by its path under _BASE."""
    text = (importlib.resources.files(__package__) / "published_files.txt").read_text()
    return {place: git_hash for git_hash, place in map(str.split, text.splitlines())}


def _fetch(address: str, path: pathlib.Path, what: str, git_hash: str | None) -> None:
    """Downloads a file that is not there yet, by way of a part beside it.

    Beside the part is the version that it is of, as the server told it; a part without one is of
    no use, since the file may have changed. Beside the file is its SHA-256, with which it is
    compared whenever it is asked for, and, where its `git_hash` is None, not known, a later
    download too.
    """
    if os.path.exists(path):
        _check_kept(path)
        return
    import fcntl  # not on Windows, where all else of this package works

    part, version = (path.with_name(f"{path.name}.part{end}") for end in ("", "_version"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # wait while another process downloads it
            if not path.exists():
                _download(address, file, version)
                sha256 = _check(part, version, path, git_hash)
                write_bytes(_record(path), f"{sha256}  {path.name}\n".encode())
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


def _record(path: pathlib.Path) -> pathlib.Path:
    """Of a file's SHA-256, as `sha256sum --check` takes it."""
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: pathlib.Path) -> str | None:
    """The SHA-256 of a file when it was downloaded; None where it is not known."""
    try:
        text = _record(path).read_text(errors="replace")
    except OSError:
        return None
    return text.split(" ")[0]


def _check_kept(path: pathlib.Path) -> None:
    """Raises FailureError where a file that was downloaded has changed since."""
    recorded = _recorded(path)
    try:
        changed = recorded is not None and _hash_of(path, hashlib.sha256()) != recorded
    except OSError as error:
        raise FailureError(f"{path} could not be read: {error.strerror}.") from error
    if changed:
        raise FailureError(
            f"{path} is damaged: it is not as it was downloaded, with the SHA-256 in "
            f"{_record(path).name}. Remove it to download it again."
        )


def _hash_of(path: pathlib.Path, digest: Any) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _is_of_use(part: pathlib.Path, version: pathlib.Path) -> bool:
    return os.path.exists(version) and os.path.exists(part) and os.path.getsize(part) > 0


def _download(address: str, file: BinaryIO, version: pathlib.Path) -> None:
    """Appends to a part what is missing of it. Raises OSError where that is less or more."""
    known = version.read_text(encoding="latin-1") if version.exists() else None
    offset = file.seek(0, os.SEEK_END)
    with _answer(address, offset, known) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            offset = 0
            version.unlink(missing_ok=True)
            if told := _version(response):
                version.write_text(told, encoding="latin-1")
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length and length.isdecimal() else None
        if (total or 0) > _MOST_BYTES:
            _refuse(version, f"it has {total:,} bytes, more than the {_MOST_BYTES:,} expected")
        name = os.path.basename(file.name)
        with tqdm(desc=name, total=total, initial=offset, unit="B", unit_scale=True) as bar:
            done = offset
            while done != total and (chunk := response.read1(_CHUNK)):
                done += file.write(chunk)
                bar.update(len(chunk))
                if done > _MOST_BYTES:
                    _refuse(version, f"it has more than the {_MOST_BYTES:,} bytes expected")
    if total not in (None, done):
        raise OSError(f"the connection broke after {done} of {total} bytes")
    file.flush()
    os.fsync(file.fileno())


def _answer(address: str, offset: int, known: str | None) -> http.client.HTTPResponse:
    """The rest of a file from an offset (status 206) if it is of the known version, else all."""
    if offset and known and known.isprintable():  # else it was damaged on the disk
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


class _NoPlainRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from an encrypted address to one that is not."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it leads to {newurl:.200}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_NoPlainRedirects)
    return opener.open(request, timeout=_TIMEOUT_S)


def _version(response: http.client.HTTPResponse) -> str | None:
    """What tells whether a file has changed; weak tags are not for parts of files."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _check(
    part: pathlib.Path, version: pathlib.Path, path: pathlib.Path, git_hash: str | None
) -> str:
    """The SHA-256 of a whole download. Raises OSError where it is not the file that it is to be."""
    with open(part, "rb") as file:
        start = file.read(64).lstrip()
    if not start:
        _refuse(version, "the answer is empty")
    if start.startswith(b"<"):
        _refuse(version, "the answer is a web page, not the file")
    sha256 = _hash_of(part, hashlib.sha256())
    if git_hash is not None:
        size = os.path.getsize(part)
        found = _hash_of(part, hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False))
        if found != git_hash:
            _refuse(version, f"it is not the published file: its SHA-1 as Git has it is {found}")
    elif _recorded(path) not in (None, sha256):
        _refuse(
            version,
            f"it is another file than was downloaded before: its SHA-256 is {sha256}, not that in "
            f"{_record(path)}, which is to be removed if the authors changed the file",
        )
    return sha256


def _refuse(version: pathlib.Path, reason: str) -> NoReturn:
    version.unlink(missing_ok=True)  # so that nothing is kept of it
    raise OSError(reason)
