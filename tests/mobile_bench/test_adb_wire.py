"""The readers of a shell's output, fed with whatever may come through a connection."""

from __future__ import annotations

import itertools
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_bench.adb.wire import LostError, ShellV1, ShellV2


class FakeWire:
    """Gives what a test has put into it, in pieces, then the end of the connection."""

    def __init__(self) -> None:
        self.service = ""
        self.pieces: list[bytes] = []

    def request(self, service: str) -> None:
        self.service = service

    def send(self, data: bytes) -> None:
        pass

    def receive(self, most: int) -> bytes:
        if not self.pieces:
            return b""
        piece, self.pieces[0] = self.pieces[0][:most], self.pieces[0][most:]
        if not self.pieces[0]:
            del self.pieces[0]
        return piece


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def read_all(shell: ShellV1 | ShellV2) -> dict[str, bytes]:
    texts = {"out": b"", "err": b""}
    while piece := shell.read():
        assert piece.data
        texts[piece.stream] += piece.data
    return texts


PLACES = st.lists(st.integers(0, 10_000), max_size=20)
OUTPUT = st.binary(max_size=200) | st.sampled_from([b"exit-", b"\r\n\r", b"a\r\nb", b"exit-ex"])


@given(st.lists(st.tuples(st.sampled_from([1, 2]), OUTPUT)), st.integers(0, 255), PLACES)
def test_packets_come_apart_anywhere(packets, code, places):
    wire = FakeWire()
    shell = ShellV2(wire, "true")
    data = b"".join(struct.pack("<BI", kind, len(text)) + text for kind, text in packets)
    wire.pieces = cut(data + struct.pack("<BIB", 3, 1, code), places)
    texts = read_all(shell)
    assert texts["out"] == b"".join(text for kind, text in packets if kind == 1)
    assert texts["err"] == b"".join(text for kind, text in packets if kind == 2)
    assert shell.exit_code == code


@given(OUTPUT, st.integers(0, 255), PLACES, st.booleans())
def test_the_marker_comes_apart_anywhere(text, code, places, is_terminal):
    wire = FakeWire()
    shell = ShellV1(wire, "true")
    marker = re.search(r"exit-[0-9a-f]{32}:", wire.service)[0].encode()
    end = b"\r\n" if is_terminal else b"\n"
    wire.pieces = cut(text + marker + str(code).encode() + end, places)
    assert read_all(shell)["out"].replace(b"\r\n", b"\n") == text.replace(b"\r\n", b"\n")
    assert shell.exit_code == code


@given(st.binary(max_size=500), PLACES, st.sampled_from([ShellV1, ShellV2]))
def test_rubbish_is_a_lost_connection(data, places, kind):
    wire = FakeWire()
    shell = kind(wire, "true")
    wire.pieces = cut(data, places)
    try:
        read_all(shell)
    except LostError:
        assert shell.exit_code is None
    else:
        assert kind is ShellV2  # the bytes happen to be whole packets with an exit code
        assert shell.exit_code is not None


def test_a_huge_packet_is_not_waited_for():
    wire = FakeWire()
    shell = ShellV2(wire, "true")
    wire.pieces = [struct.pack("<BI", 1, 2**32 - 1) + b"x" * 1000]
    with pytest.raises(LostError, match="a packet of 4294967295 bytes"):
        shell.read()
