"""Fixtures: the real adb server, and phones that are connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stand_in.adb_server import AdbServer
from stand_in.device import StandInDevice
from stand_in.phones import MODERN, OLD, PhoneKind
from stand_in.tool_file import make_tool


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """An adb server for all tests that leave it running."""
    server = AdbServer(tmp_path_factory.mktemp("adb")).start()
    yield server
    server.stop()


@pytest.fixture
def own_adb(tmp_path: Path) -> Iterator[AdbServer]:
    """An adb server for one test, which may kill it."""
    server = AdbServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def make_phone(adb: AdbServer) -> Iterator[Callable[..., StandInDevice]]:
    """Makes phones, connected to `adb` unless told not to."""
    phones = []

    def make(
        kind: PhoneKind = MODERN, features: tuple[str, ...] | None = None, connect: bool = True
    ) -> StandInDevice:
        device = StandInDevice(kind, features).start()
        phones.append(device)
        if connect:
            adb.connect(device)
        return device

    yield make
    for device in phones:
        adb.disconnect(device)
        device.close()


@pytest.fixture
def phone(make_phone: Callable[..., StandInDevice]) -> StandInDevice:
    """A connected phone with Android 14 whose benchmark_model gives made-up times at once."""
    device = make_phone()
    device.tool.instant = True
    return device


@pytest.fixture
def old_phone(make_phone: Callable[..., StandInDevice]) -> StandInDevice:
    """A connected phone with Android 9; see `phone`."""
    device = make_phone(OLD)
    device.tool.instant = True
    return device


@pytest.fixture(scope="session")
def tool_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that phones take for a benchmark_model of arm64-v8a."""
    folder = tmp_path_factory.mktemp("tool")
    return make_tool(folder / "android_aarch64_benchmark_model")
