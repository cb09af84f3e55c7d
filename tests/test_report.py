"""The report: what is written is what is read, the page needs nothing from outside, the table fits the screen."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.report import classification, page, wording
from hf_tuner.report.plots import curves, most_confused
from hf_tuner.report.report import Report, write_file

KEYS = {
    "task", "method", "model", "dataset", "metrics", "baselines", "rows", "proofs", "time", "memory", "parameters",
    "files", "versions", "command", "audit",
}  # fmt: skip
EVIL = '漢 $\\frac{$ <script>alert("x")</script>'
NAMES = ["refund", EVIL, "card"]
LOGITS = np.array([[2.0, 0, 0], [0, 3, 0], [0, 0.5, 0], [0, 0, 4], [5, 0, 0]])
TRUTH = np.array([0, 1, 0, 2, 2])
TEXTS = ["a", "b", "c", "d", f"worst {EVIL}"]


def answers(errors):
    return [(e["text"], e["expected"], e["predicted"]) for e in errors]


def score(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread}


def report(**changes):
    details = {
        "curves": [
            {"step": 5, "loss": 1.0, "learning_rate": 1e-3},
            {"step": 10, "loss": float("nan"), "learning_rate": 5e-4},
            {"step": 10, "eval_loss": 0.7},
            {"step": 15, "loss": 0.5, "learning_rate": 0.0},
        ],
        **classification.describe("single", LOGITS, TRUTH, NAMES, TEXTS),
        "config": {"learning_rate": 1e-3, "lora": {"r": 16, "note": EVIL}},
        "data": {"duplicates": {"train": 3}, "source": "https://example.org/rows.csv"},
        "notes": [EVIL],
    }
    made = Report(
        task="text-classification",
        method="lora",
        model="some/model",
        dataset="some/data",
        metrics={
            "validation": {"accuracy": score(0.91), "log_loss": score(0.4)},
            "test": {
                "log_loss": score(0.42),
                "accuracy": score(0.9),
                "roc_auc": {"value": None, "low": None, "high": None, "note": "one class"},
            },
        },
        baselines={"probe": {"test": {"accuracy": score(0.85)}}, "majority": {"test": {"accuracy": score(0.5)}}},
        rows={"train": 100, "test": 3080},
        proofs=[
            {"name": "base unchanged", "passed": True, "detail": "101 tensors"},
            {"name": "reload", "passed": False, "detail": EVIL},
        ],
        time={"train": 61.0, "evaluate": 4.0},
        memory={"peak_mb": 1834.2},
        parameters={"total": 22_713_216, "trainable": 300_000, "saved_bytes": 1_200_000},
        files={"model/": "adapter and tokenizer", "report.json": 2300},
        versions={"torch": "2.15.0"},
        command=f"hf-tuner lora --model {EVIL}",
        details=details,
    )
    return replace(made, **changes)


class Page(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "srcset", "href", "action", "data", "poster")]


@pytest.fixture(scope="module")
def written(tmp_path_factory, figures):
    folder = tmp_path_factory.mktemp("run")
    report().write(folder)
    return folder


def test_what_is_read_is_what_was_written(written):
    assert Report.read(written) == replace(report(), details={})


def test_the_json_has_the_keys_of_the_contract_and_is_the_same_in_any_order(written, tmp_path):
    text = (written / "report.json").read_text(encoding="utf-8")
    assert set(json.loads(text)) == KEYS
    swapped = report(metrics=dict(reversed(report().metrics.items())), details={})
    swapped.write(tmp_path)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text


def test_numpy_numbers_and_what_is_not_finite_become_plain_json(tmp_path):
    scores = {"accuracy": {"value": np.float32(0.5), "low": float("nan"), "high": np.float64("inf")}}
    odd = report(metrics={"test": scores}, time={"train": np.float64(2)}, details={})
    odd.write(tmp_path)
    again = Report.read(tmp_path)
    assert again.metrics["test"]["accuracy"] == {"value": 0.5, "low": None, "high": None}
    assert again.time == {"train": 2.0}


def test_the_page_fetches_and_runs_nothing(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.sources) >= 8
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


@pytest.mark.fault("S12")
def test_what_users_named_is_escaped_everywhere(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    # command, proof, note, configuration, class, confused pair or error
    assert text.count("&lt;script&gt;") >= 6


def test_the_page_shows_every_section(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    heads = re.findall(r"<h2>([A-Z][a-z]+(?: on \w+| [a-z]+)?)", text)
    assert heads == ["Scores on test", "Scores on validation", "Proofs", "Notes", "Training", "Calibration", "Classes",
                     "Confusion", "Worst errors", "Data", "Cost", "Configuration", "Versions", "Files"]  # fmt: skip
    assert "one class" in text
    assert "lora.r" in text
    assert "101 tensors" in text


def test_scores_of_each_class_of_detectors_and_segmenters_are_on_the_page(tmp_path):
    scores = [{"name": "cell", "expected": 1200, "ap": 0.4321, "ap_50": None}]
    page = report(details={"class_scores": scores}).write(tmp_path).read_text(encoding="utf-8")
    assert "AP@50" in page and "0.432" in page and ">1200<" in page and "cell" in page


def test_figures_are_png_and_no_half_file_stays(written):
    figures = sorted(p.name for p in (written / "figures").iterdir())
    assert figures == ["calibration.png", "confusion.png", "curves.png", "per_class.png"]
    for name in figures:
        data = (written / "figures" / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data.endswith(b"IEND\xaeB`\x82")
    assert sorted(p.name for p in written.iterdir()) == ["figures", "report.html", "report.json"]


def test_a_report_without_details_and_one_without_anything_still_make_a_page(tmp_path):
    bare = Report(task="text-classification", method="full", model="m", dataset="d")
    bare.write(tmp_path)
    assert "m on d" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert bare.table() == "full · m · d"


def test_a_place_below_a_file_is_refused_in_plain_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_file(tmp_path / "file" / "page.html", b"new")


def test_regression_and_many_classes_have_their_figures(tmp_path, figures):
    numbers = np.linspace(0, 5, 40)
    details = classification.describe("regression", numbers[:, None] + 0.1, numbers, [], [f"t{i}" for i in range(40)])
    report(details=details).write(tmp_path)
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["scatter.png"]
    matrix = np.eye(30, dtype=int) * 9
    matrix[7, 21] = 5
    assert {7, 21} <= set(most_confused(matrix, 4))
    assert len(most_confused(matrix, 4)) == 4


def test_files_follow_the_umask_and_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "report.json", b"old")
    finally:
        os.umask(before)
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o640

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        write_file(tmp_path / "report.json", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_bytes() == b"old"


@pytest.mark.parametrize(
    "content, words",
    [(None, "holds no report.json"), ("{", "cannot be read"), ("{}", "missing"), ("[]", "missing")],
)
def test_a_folder_without_a_sound_report_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactError, match=words):
        Report.read(tmp_path)


def test_a_report_from_before_the_audit_was_kept_is_read(written, tmp_path):
    data = json.loads((written / "report.json").read_text(encoding="utf-8"))
    del data["audit"]
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    assert Report.read(tmp_path).audit == {}
    assert Report.read(tmp_path).metrics == Report.read(written).metrics


def test_the_table_says_what_matters():
    lines = report().table().splitlines()
    accuracy = next(line for line in lines if line.strip().startswith("accuracy  "))
    assert " ".join(accuracy.split()) == "accuracy 0.900 [0.890, 0.910] 0.910 [0.900, 0.920] 0.500 0.850"
    assert "test (3,080 rows)" in lines[2]
    assert any(line.strip() == "accuracy is 0.050 better than the probe, beyond the 95 % interval" for line in lines)
    marks = [line.strip()[0] for line in lines if line.strip()[:1] in "✓✗" and line.strip()]
    assert marks == ["✗", "✓"]
    assert "300,000 of 22,713,216 trained (1.3 %), 1.2 MB saved" in "\n".join(lines)


def test_the_fullest_table_fits_25_lines_of_100_columns():
    metrics = {f"metric_{i}": score(0.5) for i in range(12)}
    proofs = [{"name": f"proof {i}", "passed": i != 9, "detail": "long " * 40} for i in range(10)]
    full = report(metrics={"test": metrics, "validation": metrics}, proofs=proofs, model="m" * 200, dataset="d" * 200,
                  baselines={b: {"test": metrics} for b in ("majority", "probe")},
                  files={f"file{i}": "what it is " * 20 for i in range(9)})  # fmt: skip
    lines = full.table().splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    assert "✗ proof 9" in full.table()
    assert lines[-1].strip() == "… 7 more in the report"
    assert f"{'m' * 200} · {'d' * 200}" in full.table(whole=True) and "long " * 39 in full.table(whole=True)


def test_scores_without_bounds_are_on_no_line(tmp_path):
    """A margin of 0.4 is 40 % of nothing; where no score has a place on the line there is no word of it either."""
    metrics = {"test": {"margin": score(0.4), "chosen_logp": score(-0.7), "perplexity": score(0.9)}}
    assert "on a line from 0 to 1.</p>" not in page.render(report(metrics=metrics, baselines={}), {})
    metrics["test"]["accuracy"] = score(0.5)
    drawn = page.render(report(metrics=metrics, baselines={}), {})
    assert "on a line from 0 to 1.</p>" in drawn and drawn.count('<svg viewBox="0 0 220 14"') == 1


def test_facts_of_the_audit_have_names_that_people_read():
    found = {"characters": {"p50": 12, "p95": 40, "max": 99}, "held_out": ["test"], "classes": {"p_50": 3}}
    shown = page.render(report(audit=found), {})
    for name in ("characters.half up to", "characters.95 % up to", "held out", "classes.p_50"):
        assert f"<td>{name}</td>" in shown
    assert "p50<" not in shown and "held_out" not in shown


def test_a_worse_or_unclear_result_is_said_so():
    say = wording.comparison
    assert "0.050 worse" in say("accuracy", score(0.8), score(0.85), "probe")
    assert "0.050 better" in say("log_loss", score(0.8), score(0.85), "probe")
    assert "lies within the 95 % interval" in say("accuracy", score(0.855), score(0.85), "probe")
    assert say("accuracy", {"value": None}, score(0.85), "probe") == ""


@pytest.mark.parametrize(
    "value, text", [(0.93384, "0.934"), (0.0, "0.000"), (0.00031, "0.0003"), (-0.25, "-0.250"), (1234.6, "1,235"),
                        (float("nan"), "–"), (None, "–")]
)  # fmt: skip
def test_numbers_are_written_for_people(value, text):
    assert wording.number(value) == text


def test_per_class_and_confusion_by_hand():
    classes = {c["name"]: c for c in classification.per_class(LOGITS, TRUTH, NAMES)}
    assert classes["refund"] == {"name": "refund", "precision": 0.5, "recall": 0.5, "f1": 0.5, "rows": 2}
    assert classes["card"]["precision"] == 1.0
    assert classes["card"]["recall"] == 0.5
    assert classification.confusion(LOGITS, TRUTH, NAMES)["matrix"] == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    absent = classification.per_class(LOGITS[:, :2], np.zeros(5, int), ["x", "y"])
    assert absent[1]["recall"] is None
    assert absent[1]["rows"] == 0


def test_worst_errors_are_the_surest_wrong_answers():
    errors = classification.worst_errors(TEXTS, LOGITS, TRUTH, NAMES)
    assert answers(errors) == [(TEXTS[4], "card", "refund"), ("c", "refund", EVIL)]
    assert errors[0]["score"] == pytest.approx(np.exp(5) / (np.exp(5) + 2))
    logits, truth = np.array([[9.0, -9], [-1, -1]]), np.array([[1, 0], [1, 0]])
    assert answers(classification.worst_errors(["p", "q"], logits, truth, ["x", "y"])) == [("q", "x", "(none)")]
    numbers = classification.worst_errors(["p", "q"], np.array([[1.0], [4]]), np.array([1.5, 1.0]), [], count=1)
    assert numbers == [{"text": "q", "expected": 1.0, "predicted": 4.0, "score": 3.0}]


def test_calibration_bins_hold_every_row():
    bins = classification.calibration(LOGITS, TRUTH)
    assert sum(b["rows"] for b in bins) == 5
    assert sum(b["rows"] * b["accuracy"] for b in bins) == pytest.approx(3)


def test_curves_show_the_score_where_no_loss_was_evaluated():
    trained = [{"step": 1, "loss": 2.0, "learning_rate": 1.0}, {"step": 9, "loss": 1.0, "learning_rate": 0.5}]
    timed, scored, lost = (
        {"step": 9, **more} for more in ({"eval_runtime": 3.0}, {"eval_map": 0.3}, {"eval_loss": 0.7})
    )
    assert curves([*trained, timed]) == curves(trained) != curves([*trained, scored])
    assert curves([*trained, lost]) == curves([*trained, {**scored, **lost}])
