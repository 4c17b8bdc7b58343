"""Downloads, from a server on loopback that stands in for the authors' addresses."""

from __future__ import annotations

import contextlib
import http.server
import pathlib
import threading

import pytest

from ofa_tf.errors import FailureError, UsageError
from ofa_tf.interop import download_checkpoint, download_specialized, published
from ofa_tf.spaces import list_spaces

CHECKPOINT = b"PK\x03\x04" + bytes(range(256)) * 40
LONG_ID = "ofa_mbv3_d234_e346_k357_w1.0"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `server.contents` by path; sends only `server.cut` bytes where that is set."""

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.contents.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.contents, server.asked, server.cut = {}, [], None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(published, "_BASE", f"{address}/ofa")
    monkeypatch.setattr(published, "_DRIVE", f"{address}/uc?export=download")
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
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", LONG_ID])
def test_checkpoint_is_downloaded_once(name, server, tmp_path):
    server.contents[f"/ofa/ofa_nets/{LONG_ID}"] = CHECKPOINT
    path = download_checkpoint(name, tmp_path / "new" / "folder")
    assert path.read_bytes() == CHECKPOINT
    assert files_in(tmp_path) == [path]
    assert download_checkpoint(name, tmp_path / "new" / "folder") == path
    assert len(server.asked) == 1


def test_drive_is_asked_by_id(server, tmp_path):
    address = "/uc?export=download&id=1xy6VIPEHXqbbqNu3xEZUxhp5FbTVs5cQ"
    server.contents[address] = CHECKPOINT
    assert download_checkpoint("ofa_resnet50", tmp_path).read_bytes() == CHECKPOINT


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_interrupted_download_leaves_nothing_and_starts_again(cut, server, tmp_path):
    address = f"/ofa/ofa_nets/{LONG_ID}"
    server.contents[address] = CHECKPOINT
    server.cut = cut
    with failure("ofa_mbv3_w1.0", address):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert files_in(tmp_path) == []
    server.cut = None
    assert download_checkpoint("ofa_mbv3_w1.0", tmp_path).read_bytes() == CHECKPOINT


def test_interrupt_by_the_user_leaves_nothing(server, tmp_path, monkeypatch):
    import keras

    def interrupted(name, origin, cache_dir, cache_subdir):
        pathlib.Path(cache_dir, name).write_bytes(CHECKPOINT[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.utils, "get_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_checkpoint("ofa_mbv3_w1.0", tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\n<!DOCTYPE html><html>Sign in</html>"])
def test_answer_that_is_no_file_is_refused(content, server, tmp_path):
    server.contents[f"/ofa/ofa_nets/{LONG_ID}"] = content
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
