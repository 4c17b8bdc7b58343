"""Downloads, from a server on loopback that stands in for the authors' addresses."""

from __future__ import annotations

import concurrent.futures
import contextlib
import email.message
import hashlib
import http.server
import io
import pathlib
import threading
import time
import urllib.request
import urllib.response

import pytest

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.interop import download_checkpoint, download_specialized, published
from ofa_tf.spaces import list_spaces

CHECKPOINT = b"PK\x03\x04" + bytes(range(256)) * 40
LONG_ID = "ofa_mbv3_d234_e346_k357_w1.0"
ADDRESS = f"/ofa/ofa_nets/{LONG_ID}"
GOES_ON = "The same call goes on where it stopped."


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `server.contents` by path, and with the rest of one where ranges are served.

    Where `server.cut` is set, it closes the connection after so many bytes, or, where
    `server.stalled` is set too, waits for that event.
    """

    def do_GET(self):
        cut, stalled = self.server.cut, self.server.stalled
        self.server.asked.append(self.path)
        content = self.server.contents.get(self.path)
        if content is None:
            self.send_error(404)
            return
        offset = self._offset(content)
        self.server.offsets.append(offset)
        if offset >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if offset else 200)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
        for name, value in self._versions(content).items():
            self.send_header(name, value)
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(content) - offset))
        self.end_headers()
        self.wfile.write(content[offset:][:cut])
        if stalled:
            self.wfile.flush()
            stalled.wait(60)

    def _versions(self, content: bytes) -> dict[str, str]:
        digest = hashlib.sha256(content).hexdigest()
        return {name: form.format(digest) for name, form in self.server.versions.items()}

    def _offset(self, content: bytes) -> int:
        """By `server.ranges`: no, yes, careless about versions, or rounded down."""
        wanted = self.headers.get("Range")
        if wanted is None or self.server.ranges == "no":
            return 0
        same = self.headers.get("If-Range") in self._versions(content).values()
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if self.server.ranges == "rounded":
            return start // 4096 * 4096
        return start if same or self.server.ranges == "careless" else 0

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.contents, server.asked, server.offsets = {}, [], []
    server.cut, server.stalled, server.ranges = None, None, "yes"
    server.versions, server.tells_length = {"ETag": '"{}"'}, True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(published, "_BASE", f"{address}/ofa")
    monkeypatch.setattr(published, "_DRIVE", f"{address}/uc?export=download")
    monkeypatch.setattr(published, "_known_hashes", dict)  # of what this server has, none
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def failure(*told):
    """The block fails with one message that has all the parts."""
    with pytest.raises(FailureError) as caught:
        yield
    for part in (*told, "by its path instead"):
        assert part in str(caught.value)


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """But the records of what was downloaded."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sha256"]


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", LONG_ID])
def test_checkpoint_is_downloaded_once(name, server, tmp_path):
    server.contents[ADDRESS] = CHECKPOINT
    path = download_checkpoint(name, tmp_path / "new" / "folder")
    assert path.read_bytes() == CHECKPOINT
    assert files_in(tmp_path) == [path]
    assert download_checkpoint(name, tmp_path / "new" / "folder") == path
    assert len(server.asked) == 1


def test_drive_is_asked_by_id(server, tmp_path):
    address = "/uc?export=download&id=1xy6VIPEHXqbbqNu3xEZUxhp5FbTVs5cQ"
    server.contents[address] = CHECKPOINT
    assert download_checkpoint("ofa_resnet50", tmp_path).read_bytes() == CHECKPOINT


def cut_off(server, folder, cut: int) -> None:
    """A download of the checkpoint that ends after so many bytes."""
    server.contents[ADDRESS] = CHECKPOINT
    server.cut = cut
    goes_on = [GOES_ON] if cut else []
    with failure("ofa_mbv3_w1.0", ADDRESS, f"after {cut} of {len(CHECKPOINT)} bytes", *goes_on):
        download_checkpoint("ofa_mbv3_w1.0", folder)
    server.cut = None


def assert_arrives(folder, content: bytes) -> None:
    """The download ends with this content, and leaves nothing beside it."""
    path = download_checkpoint("ofa_mbv3_w1.0", folder)
    assert path.read_bytes() == content
    assert files_in(folder) == [path]


@pytest.mark.parametrize(
    "versions",
    [
        {"ETag": '"{}"'},
        {"Last-Modified": "{}"},
        {"ETag": 'W/"{}"', "Last-Modified": "{}"},
    ],
)
def test_it_goes_on_where_it_stopped(versions, server, tmp_path):
    server.versions = versions
    cut_off(server, tmp_path, 5000)
    server.contents[ADDRESS] = CHECKPOINT
    server.cut = 100
    with failure(f"after 5100 of {len(CHECKPOINT)} bytes", GOES_ON):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    server.cut = None
    assert_arrives(tmp_path, CHECKPOINT)
    assert server.offsets == [0, 5000, 5100]


def test_nothing_is_left_where_nothing_came(server, tmp_path):
    cut_off(server, tmp_path, 0)
    assert files_in(tmp_path) == []
    assert_arrives(tmp_path, CHECKPOINT)


@pytest.mark.parametrize("ranges", ["no", "rounded"])
def test_server_without_just_this_range_sends_all_again(ranges, server, tmp_path):
    server.ranges = ranges
    cut_off(server, tmp_path, 5000)
    assert_arrives(tmp_path, CHECKPOINT)


@pytest.mark.parametrize("versions", [{}, {"ETag": 'W/"{}"'}])
def test_without_a_version_it_starts_again(versions, server, tmp_path):
    server.versions = versions
    server.contents[ADDRESS] = CHECKPOINT
    server.cut = 5000
    with pytest.raises(FailureError) as caught:
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert GOES_ON not in str(caught.value)
    assert files_in(tmp_path) == []
    server.cut = None
    assert_arrives(tmp_path, CHECKPOINT)
    assert server.offsets == [0, 0]


@pytest.mark.parametrize("ranges", ["yes", "careless", "no"])
@pytest.mark.parametrize("change", [lambda old: old[::-1], lambda old: old[:300], lambda old: b"x"])
def test_file_that_changed_meanwhile_is_taken_anew(ranges, change, server, tmp_path):
    """Also by a server that heeds Range but not If-Range, and where less is left of the file."""
    server.ranges = ranges
    cut_off(server, tmp_path, 5000)
    server.contents[ADDRESS] = change(CHECKPOINT)
    assert_arrives(tmp_path, change(CHECKPOINT))


def test_part_of_a_file_that_lost_its_version_is_not_kept(server, tmp_path):
    cut_off(server, tmp_path, 5000)
    server.contents[ADDRESS], server.versions, server.cut = CHECKPOINT[::-1], {}, 5000
    with failure("after 5000"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert files_in(tmp_path) == []


def test_a_damaged_version_counts_as_none(server, tmp_path):
    cut_off(server, tmp_path, 5000)
    (tmp_path / "ofa_mbv3_w1.0.pth.part_version").write_bytes(b"\xff\r\nHost: elsewhere")
    assert_arrives(tmp_path, CHECKPOINT)
    assert server.offsets == [0, 0]


def test_killed_between_the_last_byte_and_the_end(server, tmp_path):
    cut_off(server, tmp_path, 5000)
    (tmp_path / "ofa_mbv3_w1.0.pth.part").write_bytes(CHECKPOINT)
    assert_arrives(tmp_path, CHECKPOINT)


def test_interrupt_by_the_user_keeps_the_part(server, tmp_path, monkeypatch):
    bar = published.tqdm

    class Interrupted(bar):
        def update(self, n=1):
            raise KeyboardInterrupt

    server.contents[ADDRESS] = CHECKPOINT
    server.cut = 5000
    monkeypatch.setattr(published, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    kept = (tmp_path / "ofa_mbv3_w1.0.pth.part").read_bytes()
    assert len(kept) > 0
    server.cut = None
    monkeypatch.setattr(published, "tqdm", bar)
    assert_arrives(tmp_path, CHECKPOINT)
    assert server.offsets == [0, len(kept)]


def test_server_that_falls_silent_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "_TIMEOUT_S", 0.3)
    server.contents[ADDRESS] = CHECKPOINT
    server.cut, server.stalled = 5000, threading.Event()
    with failure("timed out", GOES_ON):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    server.stalled.set()
    server.cut = None
    assert_arrives(tmp_path, CHECKPOINT)
    assert server.offsets == [0, 5000]


def test_two_at_once_share_one_download(server, tmp_path):
    server.contents[ADDRESS] = CHECKPOINT
    server.cut, server.stalled = 5000, threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(download_checkpoint, "ofa_mbv3_w1.0", tmp_path)
        while not server.offsets:
            time.sleep(0.01)
        second = pool.submit(download_checkpoint, "ofa_mbv3_w1.0", tmp_path)
        server.cut = None
        server.stalled.set()
        with failure("5000 of"):
            first.result()
        assert second.result().read_bytes() == CHECKPOINT
    assert server.offsets == [0, 5000]


def test_progress_is_shown(server, tmp_path, capsys):
    cut_off(server, tmp_path, 5000)
    assert_arrives(tmp_path, CHECKPOINT)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "ofa_mbv3_w1.0.pth" in shown.err
    assert "10.2k/10.2k" in shown.err


def test_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with failure("file/sub"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path / "file" / "sub")
    assert server.asked == []


def test_by_default_it_is_kept_in_the_home_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    server.contents[ADDRESS] = CHECKPOINT
    assert download_checkpoint("ofa_mbv3_w1.0").parent == tmp_path / ".cache" / "ofa_tf"


@pytest.mark.parametrize("content", [b"", b"\n<!DOCTYPE html><html>Sign in</html>"])
def test_answer_that_is_no_file_is_refused(content, server, tmp_path):
    server.contents[ADDRESS] = content
    with failure("ofa_mbv3_w1.0", "the answer is"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert files_in(tmp_path) == []


def test_not_found_is_told(server, tmp_path):
    with failure("ofa_mbv3_w1.2", "w1.2", "404"):
        download_checkpoint("ofa_mbv3_w1.2", tmp_path)


def test_offline_is_told(server, tmp_path):
    server.shutdown()
    server.server_close()
    with failure("ofa_proxyless_w1.3", published._BASE, "refused"):
        download_checkpoint("ofa_proxyless_w1.3", tmp_path)
    assert files_in(tmp_path) == []


def test_only_published_spaces_have_checkpoints(tmp_path):
    for name in list_spaces():
        if name not in published._CHECKPOINTS:
            with pytest.raises(UsageError, match=r"ofa_mbv3_w1\.0"):
                download_checkpoint(name, tmp_path)
    with pytest.raises(UsageError, match=r"of ofa_mbv3_w1\.0-swish is published"):
        download_checkpoint("ofa_mbv3_w1.0-swish", tmp_path)
    with pytest.raises(UsageError, match="'nothing'"):
        download_checkpoint("nothing", tmp_path)


def test_specialized_network_is_three_files(server, tmp_path):
    own = "note10_lat-8ms_top1-71.4_finetune-25"
    contents = {"net.config": b"{}", "run.config": b'{"image_size": 160}', "init": CHECKPOINT}
    for name in ("net.config", "run.config"):
        server.contents[f"/ofa/ofa_specialized/{own}/{name}"] = contents[name]
    with failure(own, "init"):
        download_specialized("note10_lat@8ms_top1@71.4_finetune@25", tmp_path)

    # What is there already is not asked for again.
    server.contents[f"/ofa/ofa_specialized/{own}/init"] = CHECKPOINT
    net_config, init = download_specialized(own, tmp_path)
    assert (net_config, init) == (tmp_path / own / "net.config", tmp_path / own / "init")
    assert {path.name: path.read_bytes() for path in files_in(tmp_path)} == contents
    assert len(server.asked) == 4


@pytest.mark.parametrize("net_id", ["", "..", "a/b", "../x", "a b", "a?b=c"])
def test_strange_ids_are_refused(net_id, server, tmp_path):
    with pytest.raises(UsageError, match="id of a published network"):
        download_specialized(net_id, tmp_path)
    assert server.asked == []


# -- which file it is -------------------------------------------------------------------------


def test_the_published_files_are_known_by_their_hashes():
    known = published._known_hashes()
    ids = {place.split("/")[1] for place in known if place.startswith("ofa_specialized/")}
    assert len(ids) == 50
    for net_id in ids:
        files = [
            f"ofa_specialized/{net_id}/{name}" for name in ("net.config", "run.config", "init")
        ]
        assert set(files) <= known.keys()
    in_repository = [place for place in published._CHECKPOINTS.values() if "/" in place]
    assert len(in_repository) == 3
    assert set(in_repository) <= known.keys()
    assert published._COMMIT in published._BASE
    # A file of which the content is known here too.
    run_config = "ofa_specialized/note10_lat-8ms_top1-71.4_finetune-25/run.config"
    assert known[run_config] == git_hash(b'{\n    "image_size": 160\n}')


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_file_with_another_hash_than_the_published_one_is_refused(server, tmp_path, monkeypatch):
    place = ADDRESS.removeprefix("/ofa/")
    monkeypatch.setattr(published, "_known_hashes", lambda: {place: git_hash(CHECKPOINT)})
    server.contents[ADDRESS] = CHECKPOINT[:-1] + b"x"
    with failure("it is not the published file", git_hash(CHECKPOINT[:-1] + b"x")):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.contents[ADDRESS] = CHECKPOINT
    assert_arrives(tmp_path, CHECKPOINT)


def test_what_was_downloaded_is_recorded_and_compared(server, tmp_path):
    server.contents[ADDRESS] = CHECKPOINT
    path = download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    record = tmp_path / "ofa_mbv3_w1.0.pth.sha256"
    recorded = f"{hashlib.sha256(CHECKPOINT).hexdigest()}  ofa_mbv3_w1.0.pth\n"
    assert record.read_text() == recorded
    path.write_bytes(b"damaged")
    with pytest.raises(FailureError, match=r"\.pth is damaged: it is not as it was downloaded"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    path.unlink()
    server.contents[ADDRESS] = CHECKPOINT[::-1]
    with failure("it is another file than was downloaded before", str(record), "is to be removed"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert list(tmp_path.iterdir()) == [record]
    record.unlink()
    assert_arrives(tmp_path, CHECKPOINT[::-1])


@pytest.mark.parametrize("tells_its_length", [True, False])
def test_a_file_that_does_not_end_is_refused(server, tmp_path, monkeypatch, tells_its_length):
    monkeypatch.setattr(published, "_MOST_BYTES", 5000)
    monkeypatch.setattr(published, "_CHUNK", 1000)
    server.contents[ADDRESS], server.tells_length = CHECKPOINT, tells_its_length
    with failure("5,000", "expected"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leads_to", ["http://192.0.2.1/a", "ftp://192.0.2.1/a"])
def test_no_redirect_leads_away_from_an_encrypted_address(tmp_path, monkeypatch, leads_to):
    asked = []

    class Answers(urllib.request.HTTPSHandler):
        """Answers as a server with TLS would that sends its callers elsewhere."""

        def https_open(self, request):
            asked.append(request.full_url)
            headers = email.message.Message()
            headers["Location"] = leads_to
            answer = urllib.response.addinfourl(io.BytesIO(b""), headers, request.full_url, 302)
            answer.msg = "Found"
            return answer

    build = urllib.request.build_opener
    monkeypatch.setattr(urllib.request, "build_opener", lambda *own: build(Answers, *own))
    with failure(f"it leads to {leads_to}, which is not encrypted"):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert asked == [f"{published._BASE}/ofa_nets/{LONG_ID}"]
    assert list(tmp_path.iterdir()) == []
