"""The page of labelled samples that `hf-tuner check` writes: every task with pictures, what is drawn, where it goes."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import Said, check
from image_cases import data, good, picture
from PIL import Image
from task_runs import flags

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.tasks import _seen_answers
from hf_tuner.tasks._pictured import EDGE, spread

SEEING = [name for name in catalog.names("tasks") if catalog.task_class(name).pictures]
SAID = {
    "contrastive-image-text": r"\b(red|green|blue|white)\b",
    "image-classification": r"<p>(red|green|blue)</p>",
    "image-text-to-text": r"<p>user: what colour</p>\s*<p>assistant: (red|green|blue)</p>",
    "image-to-text": r"<p>[^<]*\b(red|green|blue|yellow|white)\b[^<]*</p>",
    "instance-segmentation": r"<p>(disc|bar): \d",
    "object-detection": r"<p>(red|green): \d",
    "panoptic-segmentation": r"(sky|ground): 1",
    "semantic-segmentation": r"<p>ground \d+%",
}
"""What stands below a picture of the tiny set-up of each task."""


def pictures_on(page: Path) -> list[Any]:
    """The pictures that a page holds."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def classes(folder: Path, *words: object) -> Said:
    """A check of a folder of classes."""
    return check(folder / "photos", "--task", "image-classification", "--output-dir", folder / "run", *words)


def samples(task: str, folder: Path) -> list[Any]:
    """What a task shows of the rows for training."""
    kind, run = catalog.task_class(task), Run(task=task, model="none", dataset=str(folder), output_dir="unused")
    rows = load_data(run, kind)
    return kind.from_data(rows, run).pictured(rows["train"], 36, 1)


@pytest.mark.parametrize("task", SEEING)
def test_every_task_with_pictures_writes_its_samples_with_their_labels(
    task: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = tiny(task)
    said = check(made.data, "--task", task, *flags(made.settings))
    page = tmp_path / "runs" / "check-data.html"
    text = page.read_text(encoding="utf-8")
    assert said.code == 0 and re.search(r"sheet     runs/check-data.html: (\d+) of \1 training rows", said.out)
    assert len(pictures_on(page)) == text.count("<figcaption>") >= 8
    assert re.search(SAID[task], text)
    assert not re.search(r"<script|(src|href)=\"(?!data:)", text)


def test_labels_and_names_from_the_data_are_escaped(tmp_path: Path) -> None:
    good(tmp_path / "photos", ("<i>cat&", "dog"))
    assert classes(tmp_path).code == 0
    text = (tmp_path / "check-photos.html").read_text(encoding="utf-8")
    assert "<p>&lt;i&gt;cat&amp;</p>" in text and "<i>cat" not in text


def test_the_page_depends_on_the_seed_alone(tmp_path: Path) -> None:
    good(tmp_path / "photos", count=30)
    pages = []
    for seed in (1, 1, 2):
        assert classes(tmp_path, "--sheet", tmp_path / "x.html", "--seed", seed).code == 0
        pages.append((tmp_path / "x.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_pictures_are_shrunk_and_all_classes_shown(tmp_path: Path) -> None:
    good(tmp_path / "photos", ("cat",), 60)
    (tmp_path / "photos" / "yak").mkdir()
    for number in range(6):
        wide = picture((1500 + number, 700), shade=90 + number)
        (tmp_path / "photos" / "yak" / f"{number}.jpg").write_bytes(data(wide))
    assert classes(tmp_path, "--sheet", tmp_path / "x.html").code == 0
    found, text = pictures_on(tmp_path / "x.html"), (tmp_path / "x.html").read_text(encoding="utf-8")
    assert len(found) == 36 and max(max(one.size) for one in found) == EDGE
    assert "<p>yak</p>" in text and "yak/" in text


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    rows = [{"file_name": f"{n}.png", "objects": {"bbox": [[110, 20, 60, 60]], "category": ["cow"]}} for n in range(4)]
    for number, row in enumerate(rows):
        Image.fromarray(np.full((100, 200, 3), 100 + 9 * number, np.uint8)).save(tmp_path / row["file_name"])
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = samples("object-detection", tmp_path)[0]
    coloured = np.ptp(np.asarray(found.image).astype(int), axis=2) > 60
    down, across = (np.flatnonzero(coloured.any(axis=axis)) * 200 / found.image.width for axis in (1, 0))
    edges = [down[0], down[-1], across[0], across[-1]]
    assert edges == pytest.approx([20, 80, 110, 170], abs=1.5) and found.lines == ("cow: 1",)


@pytest.mark.parametrize("task", ["instance-segmentation", "panoptic-segmentation"])
def test_segments_are_laid_over_their_pictures(task: str, tiny: Any) -> None:
    folder = tiny(task).data
    for one in samples(task, folder):
        original = Image.open(folder / one.place).convert("RGB").resize(one.image.size)
        moved = np.abs(np.asarray(one.image, int) - np.asarray(original, int)).max(axis=2) > 40
        assert moved.mean() > 0.03 if one.lines != ("no segments",) else not moved.any()


def test_rows_of_several_labels_show_all_of_them(tmp_path: Path) -> None:
    good(tmp_path / "photos", ("a",), 30)
    labels = [["sun"], ["sea"], ["sun", "sea"], []]
    lines = [json.dumps({"file_name": f"a/{n}.jpg", "label": labels[n % 4]}) for n in range(30)]
    (tmp_path / "photos" / "metadata.jsonl").write_text("\n".join(lines))
    said = classes(tmp_path, "--problem", "multi")
    text = (tmp_path / "check-photos.html").read_text(encoding="utf-8")
    assert said.code == 0 and set(re.findall(r"<p>(.*?)</p>", text)) == {"sun", "sea", "sea, sun", "no label"}


def test_rare_kinds_are_chosen_before_common_ones_again() -> None:
    kinds = [("cow",)] * 500 + [("yak",), ("cow", "emu"), ()]
    chosen = spread(kinds, 6, 0)
    assert {500, 501, 502} <= set(chosen) and len(chosen) == 6 and chosen == sorted(chosen)
    assert spread(kinds, 1000, 0) == list(range(503))


def test_rows_with_many_of_a_kind_do_not_crowd_it_out() -> None:
    chosen = spread([("cow",) * 10] * 50 + [("yak",)] * 50, 20, 0)
    assert sum(row < 50 for row in chosen) == 10


def test_the_few_conversations_with_a_picture_are_found() -> None:
    from datasets import Dataset

    turns = {
        "prompt": [{"role": "user", "content": "What?"}],
        "completion": [{"role": "assistant", "content": "A cow."}],
    }
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    seen = {"bytes": stream.getvalue(), "path": None}
    rows = Dataset.from_list([{**turns, "images": [seen] if n in (70, 150) else []} for n in range(200)])
    assert [one.place for one in _seen_answers.pictured(rows, 36, 0)] == ["picture 71", "picture 151"]


@pytest.mark.parametrize("words", [["--no-sheet"], ["--no_sheet"]])
def test_no_page_is_written_where_none_is_wanted(words: list[str], tmp_path: Path) -> None:
    good(tmp_path / "photos")
    said = classes(tmp_path, *words)
    assert said.code == 0 and "sheet" not in said.out and not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize(
    "words, told",
    [
        (["--sheet", "photos/cat/0.jpg"], "expected the name of a page to write, such as samples.html"),
        (["--sheet"], "--sheet: expected the name of a page"),
        (["--sheet", "x.html", "--no-sheet"], "give one of them"),
        (["--sheet", "x.html", "--task", "text-classification"], "text-classification reads no pictures"),
    ],
)
def test_pages_that_cannot_be_meant_are_refused_before_anything_is_read(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "photos")
    before = (tmp_path / "photos" / "cat" / "0.jpg").read_bytes()
    said = check("photos", "--task", "image-classification", *words)
    assert said.code == 2 and told in said.err and "data  " not in said.out
    assert (tmp_path / "photos" / "cat" / "0.jpg").read_bytes() == before


def test_a_page_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    good(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    said = classes(tmp_path, "--sheet", tmp_path / "file" / "x.html")
    assert said.code == 3 and "x.html cannot be written" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]
