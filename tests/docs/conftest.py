"""A `mobile-bench` that finds no phones and measures nothing, but reads all that it is given."""

from __future__ import annotations

import pytest
from bench_helpers import make_measurement

from mobile_bench.results import Memory, OpTime
from mobile_bench.rows import RowWriter

ROW = make_measurement(
    memory=Memory(1.0, 2.0, 3.0),
    profile=(OpTime("conv", "CONV_2D", 10.0, 1, 100.0),),
)
_SUBNET = "subnets/NAME/model_int8.tflite"


class Asked:
    """In the place of a session: what it was asked for."""

    device = ROW.device

    def open_targets(self, names, settings, options, stop):
        self.settings = settings
        return [self]

    def measure_on(self, targets, paths, settings, *, rounds, cooldown_secs, **others):
        self.rounds, self.cooldown_secs = rounds, cooldown_secs

    def close(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch, tmp_path) -> Asked:
    """No phones, and the current folder has the files that the pages name."""
    made = Asked()
    monkeypatch.setattr("mobile_bench.session.open_targets", made.open_targets)
    monkeypatch.setattr("mobile_bench.session.measure_on", made.measure_on)
    monkeypatch.setattr("mobile_bench.phone.target.open_adb", lambda options: None)
    monkeypatch.setattr("mobile_bench.phone.target.clean", lambda names, options: {})
    monkeypatch.setattr("mobile_bench.phone.listing.list_devices", lambda adb: [])
    monkeypatch.chdir(tmp_path)
    for job in ("DIR", "runs/quickstart", "runs/cifar10", "runs/my_space"):
        (tmp_path / job / _SUBNET).parent.mkdir(parents=True)
        (tmp_path / job / _SUBNET).touch()
    for name in ("runs.jsonl", "before.jsonl", "after.jsonl"):
        with RowWriter(name) as writer:
            writer.write(ROW)
    return made
