"""No file name and no answer of a phone gets into a shell; answers are bounded."""

import dataclasses
import hashlib
import os
import shlex
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phone_helpers import SETTINGS, make_options, remote_files, run_session
from stand_in import Answer

from mobile_bench.adb.device import FOLDER
from mobile_bench.errors import FailureError
from mobile_bench.models import ModelFile
from mobile_bench.phone.batch import BatchReader, make_script
from mobile_bench.phone.binary import launcher
from mobile_bench.phone.install import remote_model
from mobile_bench.phone.target import open_phones

NASTY_NAMES = [
    "with space",
    'it\'s "quoted"',
    "; touch bad",
    "$(touch bad)",
    "`touch bad`",
    "two\nlines",
    "--version",
    "-e x",
    "*?[a]",
    "a&b|c>d<e",
    "ünïcödé 電話 \u202e",
    "\udcff not utf-8",
    "tab\tbell\a",
    "x" * 240,
]


@pytest.fixture
def options(adb, tool_path):
    return make_options(adb, tool_path)


@pytest.fixture
def nasty_paths(tmp_path):
    """Model files of nasty names, and one whose path has more than 300 characters."""
    deep = tmp_path / ("d" * 200) / ("e" * 100)
    deep.mkdir(parents=True)
    paths = [tmp_path / f"{name}.tflite" for name in NASTY_NAMES] + [deep / "deep file.tflite"]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 100)
    return [str(path) for path in paths]


def test_nasty_names_are_measured_and_never_sent(phone, options, nasty_paths, tmp_path):
    sent = []
    phone_files = phone.root / FOLDER.lstrip("/")
    phone.on_run = lambda device, run: sent.extend(
        path.read_bytes() for path in phone_files.glob("jobs/*.sh")
    )
    outcome = run_session(nasty_paths, phone.serial, options)
    assert outcome.lines == []
    assert [row.model for row in outcome.rows] == nasty_paths
    for name in remote_files(phone):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-./"), name
    texts = [*phone.log, *(path for _, path, _ in phone.transfers), *map(os.fsdecode, sent)]
    assert sent
    for text in texts:
        for path in nasty_paths:
            assert Path(path).stem not in text
        assert str(tmp_path) not in text
    assert list(phone.root.rglob("bad*")) == []


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.binary(min_size=1))
@settings(deadline=None)
def test_a_model_goes_by_its_bytes_alone(name, content):
    digest = hashlib.sha256(content).hexdigest()
    remote = remote_model(ModelFile(name, digest, len(content)))
    assert remote == f"{FOLDER}/models/{digest[:32]}.tflite"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
@settings(deadline=None)
def test_a_script_has_words_only_quoted(words):
    """Every word comes back whole from a shell's parsing of the line that runs it."""
    script = make_script(
        [words], token="abc", folder=FOLDER, launcher=launcher((4, 5)), state="echo"
    )
    line = script[script.index("\nrun 0 ") + 1 : script.rindex("\nrm -f jobs/shell")]
    assert shlex.split(line) == ["run", "0", *words]


MALICIOUS = "$(touch /data/bad); `touch /data/bad`\n\x1b]0;title\a'\"&& touch /data/bad\n"


@pytest.mark.parametrize("command", ["getprop", "dumpsys", "settings", "sha256sum"])
def test_malicious_answers_are_data(command, phone, options, tmp_path):
    """Whatever a command of the phone prints, it runs nothing and the user sees one line."""
    path = tmp_path / "a.tflite"
    path.write_bytes(b"model")
    answer = MALICIOUS + f"[ro.product.model]: [{MALICIOUS}]\n" + "x" * 300_000
    phone.set_answer(command, Answer(answer))
    outcome = run_session(
        [str(path)],
        phone.serial,
        options,
        settings=dataclasses.replace(SETTINGS, screen="on"),
    )
    assert len(outcome.rows) + len(outcome.lines) == 1
    for row in outcome.rows:
        device = vars(row.device)
        assert all(value.isprintable() for value in device.values() if isinstance(value, str))
        assert len(str(row.device)) + len(str(row.before)) < 5000
    assert list(phone.root.rglob("bad")) == []


@pytest.mark.parametrize("serial", ["-x", "--help", "a b", "$(reboot)", "x;reboot", "é"])
def test_serials_that_are_none(serial, options):
    with pytest.raises((FailureError, ValueError)) as caught:
        open_phones([serial], SETTINGS, options, threading.Event())
    assert str(caught.value).isprintable()


def test_an_endless_answer_ends(phone, options, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(b"model")
    phone.set_answer("getprop", Answer("[ro.product.model]: [x]\n" * 200_000))
    outcome = run_session([str(path)], phone.serial, options)
    assert len(outcome.lines) + len(outcome.rows) == 1


@given(st.lists(st.sampled_from(["0 run", "0 exit 0", "0 end", "cpus 0-7", "1 run", ""])))
@settings(deadline=None)
def test_what_a_tool_prints_cannot_end_its_run(words):
    """Without the token, no line of a tool is taken for one of the script's."""
    reader = BatchReader(1, "abc123")
    reader.feed("out", "abc123 0 run")
    for word in words:
        for line in (word, f"abc124 {word}", f" abc123 {word}", f"x abc123 {word}"):
            assert reader.feed("out", line) is None
            assert reader.feed("err", line) is None
    assert reader.done == 0
