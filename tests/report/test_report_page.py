"""The page: what it says of a job, whole or in parts, and that it is one well-formed file."""

from __future__ import annotations

import json
import re
import shutil
from unittest import mock

import pytest
from page_helpers import (
    ARCHS,
    PREDICTED,
    SPACE,
    TABLE,
    Element,
    full_job,
    page_of,
    parse,
    trained_job,
    write_measurement,
    write_metrics,
    write_search,
    write_subnet,
)

from mobile_bench.results import Settings
from ofa_tf.errors import FailureError
from ofa_tf.files import append_json, read_json, write_json
from ofa_tf.report.page import read_report
from ofa_tf.report.plots import Picture
from ofa_tf.workdir import Workdir

LATER = {"date": "2026-01-01T00:00:00+00:00", "session": "later"}
SECTIONS = ("overview", "training", "accuracy", "latency", "search", "subnets")


@pytest.fixture(scope="module")
def full_workdir(tmp_path_factory):
    return full_job(tmp_path_factory.mktemp("full") / "job")


@pytest.fixture
def copied(full_workdir, tmp_path):
    """A copy of the full job, to be changed."""
    return Workdir(shutil.copytree(full_workdir.path, tmp_path / "job"))


@pytest.fixture(scope="module")
def full(full_workdir):
    return page_of(full_workdir, PREDICTED)


@pytest.fixture(scope="module")
def tree(full):
    return parse(full)


def undrawn(workdir, predicted=None) -> str:
    """The page with empty pictures, for tests of its texts: drawing takes a second."""
    with mock.patch.object(Picture, "svg", lambda _, identity: f'<svg id="{identity}"></svg>'):
        return page_of(workdir, predicted)


def notes(tree, section: str) -> str:
    """What the notes of a section say."""
    boxes = tree.by_id(section).all("div")
    return " ".join(box.text for box in boxes if (box["class"] or "").startswith("note"))


def test_one_file_that_loads_nothing(full, tree):
    assert not {element.tag for element in tree.all()} & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?:|url\(|@import|src=", full)
    assert len(full) < 80_000


def test_the_page_is_well_formed(tree):
    identities = [element["id"] for element in tree.all() if element["id"]]
    assert len(identities) == len(set(identities))
    links = [element["href"] for element in tree.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(identities)
    assert set(SECTIONS) <= {link.removeprefix("#") for link in links}
    assert tree.all("html")[0]["lang"] == "en"
    assert [element.text for element in tree.all("h1")] == ["job"]
    assert all(head["scope"] for head in tree.all("th"))
    pictures = [svg for svg in tree.all("svg") if not svg["aria-hidden"]]
    for svg in pictures:
        title = svg.by_id(svg["aria-labelledby"])
        assert svg["role"] == "img"
        assert title in svg.children
        assert title.text
    titles = [svg.by_id(svg["aria-labelledby"]).text for svg in pictures]
    assert len(set(titles)) == len(titles)
    parts = [element for svg in pictures for element in svg.all() if element["href"]]
    assert parts
    assert {part["href"].removeprefix("#") for part in parts} <= set(identities)
    # Training, both predictors, the tradeoff, a front, and a diagram of each subnet.
    assert len(pictures) == 5 + len(ARCHS)


def test_the_page_opens_with_the_tradeoff_and_the_chosen_subnets(tree):
    first, *others = tree.by_id("overview").all("figure")
    assert others == []
    assert first.all("svg")[0]["id"] == "tradeoff-1"
    inner = tree.all("main")[0].all()
    places = [
        next(i for i, element in enumerate(inner) if element.tag == tag)
        for tag in ("section", "figure", "table", "dl")
    ]
    assert places == sorted(places)
    assert inner[places[0]]["id"] == "overview"


def test_every_picture_shows_its_rows(tree):
    """A mark with a tip for each subnet, file, evaluation, point of a front, and block."""
    tips = {
        svg["id"]: [
            child.text
            for mark in svg.all()
            for child in mark.children
            if isinstance(child, Element) and child.tag == "title"
        ]
        for svg in tree.all("svg")
    }
    small, large = (SPACE.blueprint(arch, 2) for arch in ARCHS.values())
    assert {name: len(texts) for name, texts in tips.items()} == {
        "tradeoff-1": 4,
        "corners": 5,
        "predicted": 3,
        "latencies-1": 6,
        "front-macs_m": 2,
        "blocks-1": len(small.blocks),
        "blocks-2": len(large.blocks),
    }
    assert tips["tradeoff-1"] == [
        "small: measured 0.251 ms, 71.2 %",
        "large: measured 0.251 ms, 71.2 %",
        "small: predicted 0.0213 ms, 60.0 %",
        "large: predicted 0.3171 ms, 70.0 %",
    ]
    # Which of many devices a latency is of has no room in the title of a drawing.
    blocks = next(svg for svg in tree.all("svg") if svg["id"] == "blocks-1")
    titles = [text.text for text in blocks.all("text") if text.text.startswith("small")]
    assert titles == [f"small: 24 × 24 px, {small.macs / 1e6:.1f} M MACs"]
    assert tips["front-macs_m"] == ["1 M, 60.0 %", "2 M, 70.0 %"]


def test_equal_jobs_give_equal_pages(full, full_workdir, copied):
    assert page_of(full_workdir, PREDICTED) == full
    times_and_folders = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d|--\w+=[^<]*")
    assert times_and_folders.sub("", page_of(copied, PREDICTED)) == times_and_folders.sub("", full)


def test_overview(tree):
    overview = tree.by_id("overview")
    tiles = {
        div.all("dt")[0].text: div.all("dd")[0].text for div in overview.all("div") if div.all("dt")
    }
    assert tiles["search space"] == SPACE.name
    assert "those of the search" not in overview.text
    assert tiles["phases trained"] == "2 of 2"
    assert tiles["accuracy predictor off by"] == "1.23 points"
    assert tiles["best accuracy of a file"] == "71.2 %"
    costs, latency, accuracy, size = (table.rows() for table in overview.all("table"))
    plan = SPACE.blueprint(SPACE.min(), 2)
    assert costs["small"] == ["24", f"{plan.macs / 1e6:.1f}", f"{plan.params / 1e3:.1f}"]
    assert latency["subnet"] == ["budget", "predicted", "float32", "int8"]
    assert latency["small"] == ["0.500", "0.021", "0.251", "0.151"]  # medians of three rounds
    assert accuracy["large"] == ["70.0", "71.2", "70.1"]
    assert size["large"] == ["12", "12"]


def test_training(tree):
    training = tree.by_id("training")
    phases, corners = (table.rows() for table in training.all("table"))
    assert phases["kernel"][:2] == ["done", "2"]
    assert phases["largest"][-3:] == ["1.250", "400", "0"]
    assert corners["r24_d2_e4_k3"] == ["–", "31.0 → 62.3"]
    assert corners["r32_d2_e4_k7"] == ["70.0", "72.0 → 73.4"]
    assert "ofa_doodles" in training.text
    assert "500 images, drawn with seed 3" in training.text
    assert "the middle 87.5 % of an image" in training.text
    assert "gradient norm" not in training.text  # it is off


def test_predictors(tree):
    accuracy, latency = tree.by_id("accuracy").text, tree.by_id("latency")
    for told in ("1.23 points", "0.810", "40 subnets", "up to 600 held out"):
        assert told in accuracy
    assert latency.rows()["3 subnets that it never saw"] == ["10.0", "+10.0", "10.0", "1.000"]
    for told in ("host, cpu, Linux", "2025-01-02 03:04 UTC", "tensorflow 2.21.0", TABLE):
        assert told in latency.text


def test_a_table_of_a_phone_tells_its_command(copied):
    table = read_json(copied.path / TABLE)
    table["setup"]["device"] |= {"target": "R58", "serial": "R58", "model": "LE2113"}
    table["setup"]["settings"] |= {"threads": 2, "cpus": "big"}
    table["precision"] = "int8"
    write_json(copied.path / "latency_R58_int8_cpus-big_2t.json", table)
    latency = parse(undrawn(copied)).by_id("latency")
    assert [head.text for head in latency.all("h3")] == [
        "LE2113, int8, 2 threads, cores big, xnnpack",
        "host, float32, 1 thread, xnnpack",
    ]
    assert "--target=R58 --threads=2 --cpus=big --tflite_precision=int8" in latency.text


def test_what_turns_or_hides_text_is_spelled_out(copied):
    config = read_json(copied.config_file)
    evil = "cat\u202e\u200b\x1b[31m<b>"
    write_json(copied.config_file, config | {"class_names": [evil, "dog"]})
    page = undrawn(copied)
    assert not {"\u202e", "\u200b", "\x1b"} & set(page)
    assert r"cat\u202e\u200b\x1b[31m&lt;b&gt;" in page


def test_a_table_that_does_not_tell_how_good_it_is(copied):
    table = read_json(copied.path / TABLE)
    write_json(copied.path / TABLE, table | {"report": {}, "setup": {}})
    tree = parse(undrawn(copied, PREDICTED))
    assert "does not tell how well it predicts" in notes(tree, "latency")
    assert "not measured by ofa-latency" in tree.by_id("latency").text


def test_a_table_that_was_compared_with_no_subnets_has_no_picture(copied):
    table = read_json(copied.path / TABLE)
    for report in (table["report"], table["report"]["fitted"]):
        report["subnets"] = []
    write_json(copied.path / TABLE, table)
    latency = parse(undrawn(copied, PREDICTED)).by_id("latency")
    assert latency.all("svg") == []
    assert latency.all("table")


def test_every_latency_of_every_device(tree):
    subnet = tree.by_id("subnet-1")
    tables = {
        table.all("caption")[0].text: table.rows()
        for table in subnet.all("table")
        if table.all("caption")
    }
    host = tables["ms on host, cpu, Linux; xnnpack, 1 thread, any cores"]
    assert host["tflite float32"][:3] == ["0.021", "0.251", "0.250 to 0.252"]
    assert host["tflite float32"][-1] == "valid"
    assert host["tflite int8"][:2] == ["–", "0.151"]  # the table is of float32 files
    phone = tables["ms on R58, OnePlus LE2113, SM8350, Android 13; xnnpack, 2 threads, cores big"]
    assert phone["tflite float32"][:2] == ["–", "0.988"]
    assert phone["tflite float32"][-1] == "not valid"
    assert "hot: the battery was at 39.0 C, above 37 C (3 of 3 rounds)" in subnet.text
    assert "tflite int8: 3 HARD_SWISH" in subnet.text


def test_op_profile(tree):
    subnet = tree.by_id("subnet-1")
    kinds = next(t for t in subnet.all("table") if t.text.startswith("By kind")).rows()
    assert kinds["Convolution"][:3] == ["1", "0.030", "60.0"]
    assert kinds["Add"][:3] == ["1", "0.020", "40.0"]  # called twice
    assert "2 operations, 0.050 ms together" in subnet.text
    assert "--op_profile" in tree.by_id("subnet-2").text  # how to get one there


def test_a_trained_job(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_metrics(workdir)
    tree = parse(undrawn(workdir))
    assert "31.0 → 62.3" in tree.by_id("training").text
    for section, command in (
        ("overview", "ofa-search"),
        ("accuracy", "ofa-predictor"),
        ("latency", "ofa-latency"),
        ("search", "ofa-search"),
        ("subnets", "ofa-search"),
    ):
        assert f"{command} --workdir={workdir.path}" in notes(tree, section)


def test_a_job_that_has_only_begun(tmp_path):
    tree = parse(undrawn(trained_job(tmp_path / "job")))
    assert "No accuracy is known yet" in notes(tree, "training")
    assert tree.by_id("training").rows()["largest"][0] == "to come"
    assert not [svg for svg in tree.all("svg") if not svg["aria-hidden"]]


def test_an_interrupted_training(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_metrics(workdir)
    lines = workdir.metrics.read_text().splitlines(keepends=True)
    workdir.metrics.write_text("".join(lines[:-1]) + lines[-1][:20])  # the last is unfinished
    phases, corners = (table.rows() for table in parse(undrawn(workdir)).all("table"))
    assert phases["kernel"][0] == "begun"
    assert corners["r24_d2_e4_k3"][1] == "31.0 → …"


def test_an_imported_job_without_images(tmp_path):
    recipe = {"checkpoint": "abc123", "new_head": False}
    workdir = trained_job(tmp_path / "job", data=None, recipe=recipe)
    training = parse(undrawn(workdir)).by_id("training").text
    for told in (
        "none: the job was imported without",
        "SHA-256 abc123",
        "ofa-import",
        "no training",
    ):
        assert told in training


def test_a_search_with_a_given_predictor(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_search(workdir)
    found = read_json(workdir.search_result)
    found["settings"] = {"accuracy_predictor": {"acc.pth": "0123456789abcdef"}}
    write_json(workdir.search_result, found)
    tree = parse(undrawn(workdir))
    assert "was given a predictor of another job" in notes(tree, "accuracy")
    assert "acc.pth (SHA-256 0123456789ab…)" in tree.by_id("search").text
    assert "It is not exported yet. ofa-export" in notes(tree, "subnets")


def test_ranked_candidates(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_search(workdir)
    found = read_json(workdir.search_result)
    row = found["subnets"][0]
    names = ("arch", "predicted_accuracy", "measures")
    row["candidates"] = [
        {**{n: row[n] for n in names}, "evaluated_accuracy": a} for a in (0.66, 0.6)
    ]
    write_json(workdir.search_result, found)
    rows = parse(undrawn(workdir)).by_id("search").rows()
    assert rows["small"][:4] == ["latency ≤ 0.5 ms", "1", "60.0", "66.0"]
    assert rows["2"][:2] == ["60.0", "60.0"]
    assert rows["large"][:4] == ["latency ≤ 0.5 ms", "1", "70.0", "–"]


def test_files_of_an_earlier_search(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_search(workdir)
    write_subnet(workdir, "small", arch=SPACE.max().to_dict())
    tree = parse(undrawn(workdir))
    assert "of an arch that an earlier search chose. ofa-export" in notes(tree, "subnets")
    assert "model_int8.tflite" not in tree.text


def test_a_network_of_its_own(tmp_path):
    workdir = trained_job(tmp_path / "job")
    write_subnet(workdir, "note8", space=None, resolution=224, macs=2.5e8, params=4.1e6)
    subnet = parse(undrawn(workdir)).by_id("subnet-1")
    assert "224 × 224 px" in subnet.text
    assert "250.0 M MACs" in subnet.text
    assert "No latency is measured yet. mobile-bench" in subnet.text
    assert not subnet.all("svg")


@pytest.mark.parametrize(
    ("card_hash", "told"),
    [
        ("feed", "fine-tuned ones are there too: 70.0 % before"),
        ("beef", "fine-tuned for this subnet"),
    ],
)
def test_whose_weights_the_files_have(tmp_path, card_hash, told):
    workdir = trained_job(tmp_path / "job")
    write_search(workdir)
    write_subnet(workdir, "small", fingerprint=f"{card_hash}-64-0.875")
    tuned = workdir.finetuned("small")
    write_json(tuned.config_file, {"supernet": "feed"})
    for when, accuracy in (("before", 0.7), ("after", 0.75)):
        row = {"step": 0, "phase": "finetune", "when": when, "accuracy": {"subnet": accuracy}}
        append_json(tuned.metrics, row)
    text = parse(undrawn(workdir)).by_id("subnet-1").text
    assert told in text
    assert "75.0 % after it on held-out images" in text


@pytest.mark.parametrize(("card_hash", "other"), [("feed", False), ("beef", True)])
def test_files_of_other_weights_than_were_searched(tmp_path, card_hash, other):
    workdir = trained_job(tmp_path / "job")
    write_search(workdir)
    write_subnet(workdir, "small", fingerprint=f"{card_hash}-64-0.875-200")
    text = parse(undrawn(workdir)).by_id("subnet-1").text
    assert "Weights: of the supernet, batch norm recalibrated" in text
    assert ("but not those that were searched" in text) == other


def test_texts_of_files_are_only_texts(tmp_path):
    evil = """<script>alert("1")</script>&'<b>"""
    workdir = trained_job(tmp_path / "<i>job", class_names=[evil, "dog"])
    write_search(workdir)
    found = read_json(workdir.search_result)
    found["subnets"][0]["name"] = '"><b>evil'
    write_json(workdir.search_result, found)
    tree = parse(undrawn(workdir))
    assert not {element.tag for element in tree.all()} & {"script", "b", "i"}
    assert f"{evil}, dog" in tree.by_id("training").text
    assert tree.by_id("subnet-1").all("h3")[0].text == '"><b>evil'
    assert tree.all("h1")[0].text == "<i>job"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", "{", "could not be read as JSON"),
        ("metrics.jsonl", "{}\n[]\n", "line 2 is no object"),
        ("metrics.jsonl", "no\n", "line 1 is no JSON"),
        ("metrics.jsonl", '{"accuracy": {"a": "b"}, "step": 1}\n', "no number but 'b'"),
        ("accuracy_report.json", "[]", "expected an object, not a list"),
        ("accuracy_report.json", '{"accuracies": [1], "predictions": []}', "not one prediction"),
        ("accuracy_report.json", '{"accuracies": [NaN], "predictions": [1]}', "accuracies.0"),
        (TABLE, '{"report": 3}', "report is no object but 3"),
        ("search.json", '{"settings": {}, "subnets": [{"name": "a"}]}', "subnets[0]"),
        ("front_macs_m.json", '{"settings": {}}', "subnets is missing"),
        ("measurements.jsonl", "no\n", "line 1: not a measurement"),
        ("subnets/small/card.json", "{}", "files is missing"),
    ],
)
def test_a_damaged_file_is_named(copied, name, content, told):
    (copied.path / name).write_text(content)
    with pytest.raises(FailureError, match=re.escape(told)) as caught:
        read_report(copied, SPACE, {})
    assert str(copied.path / name) in str(caught.value)


def test_a_missing_model_is_named(copied):
    (copied.subnets / "small" / "model_int8.tflite").unlink()
    with pytest.raises(FailureError, match=r"model_int8\.tflite is missing\. Run ofa-export again"):
        read_report(copied, SPACE, {})


@pytest.mark.parametrize("settings", [Settings(), Settings(num_runs=10)])
def test_the_newest_measurement_counts(copied, settings):
    write_measurement(copied, "small", "float32", 500.0, settings=settings, **LATER)
    tree = parse(undrawn(copied))
    tables = tree.by_id("subnet-1").all("table")
    host = next(t for t in tables if t.text.startswith("ms on host"))
    assert host.rows()["tflite float32"][1] == "0.501"
    assert len(host.rows()) == 3  # the heads, and a row for each file
    assert tree.by_id("overview").all("table")[1].rows()["small"][2] == "0.501"


def test_the_overview_shows_what_was_predicted_and_not_slowed(copied):
    copied.measurements.unlink()
    write_measurement(copied, "small", "float32", 250.0)
    for name in ARCHS:  # more of them than of that
        for precision in ("float32", "int8"):
            for cpus in ("", "big"):
                settings = Settings(cpus=cpus, op_profile=not cpus)
                write_measurement(copied, name, precision, 900.0, settings=settings, **LATER)
    latency = parse(undrawn(copied)).by_id("overview").all("table")[1]
    assert "files measured on host, cpu, Linux; xnnpack, 1 thread, any cores" in latency.text
    assert latency.rows()["small"] == ["0.500", "0.021", "0.251"]


def test_another_host_s_table_predicts_nothing_here(copied):
    table = read_json(copied.path / TABLE)
    table["setup"]["device"]["cpu"] = "another"
    write_json(copied.path / TABLE, table)
    tables = parse(undrawn(copied, PREDICTED)).by_id("subnet-1").all("table")
    host = next(t for t in tables if t.text.startswith("ms on host"))
    assert host.rows()["tflite float32"][:2] == ["–", "0.251"]
    overview = parse(undrawn(copied, PREDICTED)).by_id("overview").text
    assert "budget and prediction are those of the search" in overview


def test_an_imported_job_in_a_folder_named_after_a_command(tmp_path):
    recipe = {"checkpoint": "abc123", "new_head": False}
    workdir = trained_job(tmp_path / "ofa-train", data=None, recipe=recipe)
    assert f"ofa-import --workdir={workdir.path}" in undrawn(workdir)


@pytest.mark.parametrize("name", ["largest", "sandwich", "expand2"])
def test_phases_begin_where_the_one_before_was_evaluated_last(tmp_path, name):
    workdir = trained_job(tmp_path / "job")
    for step, phase, when in ((5, name, "epoch 1"), (9, name, "after"), (12, "next", "epoch 1")):
        row = {"step": step, "phase": phase, "when": when, "accuracy": {"a": 0.5, "b": 0.6}}
        append_json(workdir.metrics, row)
    training = read_report(workdir, SPACE, {}).training
    assert training.phase_starts == {name: 0, "next": 9}


def test_an_unfinished_measurement_is_told(copied):
    with open(copied.measurements, "a") as file:
        file.write(json.dumps({"version": 2})[:-3])
    assert "the unfinished last row is left out" in notes(parse(undrawn(copied)), "overview")
