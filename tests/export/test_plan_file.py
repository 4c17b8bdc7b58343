"""The files that describe an exported network, and its way back from either kind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import ofa_tf
from ofa_tf.errors import FailureError, UsageError
from ofa_tf.export import plan_file
from ofa_tf.export.plan_file import plan_texts, read_plan
from ofa_tf.spaces import Blueprint, get_space
from ofa_tf.spaces.blueprint import Classifier, GlobalPool


def with_another_head(name: str) -> Blueprint:
    """The largest network of a space without its wide layers, which no net.config can hold."""
    space = get_space(name)
    plan = space.blueprint(space.max(), num_classes=10)
    blocks = [*plan.blocks[:2], *plan.elastic_blocks[:1]]  # two stems, perhaps
    last = blocks[-1]
    pool = GlobalPool("pool", last.out_size, last.out_channels)
    blocks += [pool, Classifier("classifier", last.out_channels, 10, 0.2)]
    return Blueprint(plan.resolution, tuple(blocks), bn_epsilon=1e-3)


def write(plan, folder) -> list[str]:
    texts = plan_texts(plan)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return list(texts)


def test_a_network_of_a_published_family_has_a_net_config(tmp_path):
    space = get_space("ofa_mbv3_tiny")
    plan = space.blueprint(space.min(), num_classes=10)
    assert write(plan, tmp_path) == ["net.config", "run.config"]
    assert read_plan(tmp_path).macs == plan.macs


def test_another_network_has_a_blueprint(tmp_path):
    plan = with_another_head("ofa_resnet_tiny")
    assert write(plan, tmp_path) == ["blueprint.json"]
    assert read_plan(tmp_path) == plan


@pytest.fixture
def of_own_family(smallest, tmp_path, monkeypatch):
    """An exported folder, as if no net.config could hold its network."""

    def refuse(plan):
        raise UsageError("a net.config cannot hold it")

    monkeypatch.setattr(plan_file, "to_net_config", refuse)
    for name in ("card.json", "model.keras"):
        shutil.copy(smallest.folder / name, tmp_path)
    assert write(smallest.spec.plan, tmp_path) == ["blueprint.json"]
    return tmp_path


def test_such_a_folder_is_loaded(of_own_family, smallest):
    images = smallest.images[:4]
    found, expected = ofa_tf.load_subnet(of_own_family)(images), smallest.model(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert ofa_tf.load_subnet(of_own_family, include_top=False)(images)


def damaged(content: dict, how: str) -> str:
    if how == "kind":
        content["blocks"][0]["kind"] = "Dense"
    elif how == "field":
        del content["blocks"][0]["stride"]
    elif how == "key":
        content["color"] = "red"
    elif how == "number":
        content["blocks"][0]["out_channels"] = "many"
    elif how == "none":
        content["blocks"] = []
    return json.dumps(content)[: 30 if how == "cut" else None]


@pytest.mark.parametrize("how", ["kind", "field", "key", "number", "none", "cut"])
def test_a_damaged_blueprint_is_refused(of_own_family, how):
    path = of_own_family / "blueprint.json"
    path.write_text(damaged(json.loads(path.read_text()), how))
    with pytest.raises(FailureError, match=r"blueprint\.json"):
        ofa_tf.load_subnet(of_own_family)


def test_a_blueprint_of_another_network_is_refused(of_own_family):
    write(with_another_head("ofa_mbv3_tiny"), of_own_family)
    with pytest.raises(FailureError, match=r"card\.json and the blueprint\.json beside it"):
        ofa_tf.load_subnet(of_own_family)
