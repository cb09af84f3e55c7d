"""Semantic segmentation: masks of every kind, what their numbers mean, scores by counting, and what trains and answers."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from task_runs import QUICK, train
from tiny_tasks import Tiny
from tiny_tasks.semantic_segmentation import NAMES, make_mobilenet, shapes, write_shapes

from hf_tuner import predict
from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.data.mask_folders import mask_folders, read_mask_folders
from hf_tuner.errors import UsageError
from hf_tuner.metrics._segmentation import confusion, per_class, row_ious, scores, tallies
from hf_tuner.models.processors import load_processor
from hf_tuner.models.restore import restore
from hf_tuner.pictures import open_mask
from hf_tuner.tasks._masks import IGNORED, Code, as_png, code_of, decoded_mask, sheet
from hf_tuner.tasks._pictured import place_of
from hf_tuner.tasks.semantic_segmentation import Config, SemanticSegmentation

TASK = "semantic-segmentation"
IDS = np.array([[0, 1, 7], [300, 2, 255]])


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def mask_of(values: np.ndarray, mode: str) -> Image.Image:
    """A mask of ids below 256 in a mode of Pillow."""
    small = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        small.putpalette(bytes(255 - i // 3 for i in range(768)))
        return small
    return small if mode == "L" else small.convert(mode)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA"])
def test_a_mask_gives_the_numbers_that_are_stored(mode: str) -> None:
    small = IDS.clip(max=255)
    assert (open_mask(stored(mask_of(small, mode))) == small).all()


def test_sixteen_bit_one_bit_and_turned_masks_keep_their_numbers() -> None:
    assert (open_mask(stored(Image.fromarray(IDS.astype(np.uint16)))) == IDS).all()
    assert (open_mask(stored(Image.fromarray(IDS.astype(np.int32)), "TIFF")) == IDS).all()
    bits = np.array([[0, 1], [1, 0]])
    assert (open_mask(stored(Image.fromarray(bits.astype(bool)))) == bits).all()
    turned = Image.Exif()
    turned[274] = 6  # a quarter to the right
    assert (open_mask(stored(mask_of(bits[:1], "L"), exif=turned)) == bits[:1].T).all()


def test_what_is_no_mask_is_refused_with_the_reason() -> None:
    colours = Image.new("RGB", (4, 4), (200, 30, 30))
    with pytest.raises(UsageError, match="a mask in colours; expected one number a pixel"):
        open_mask(stored(colours))
    with pytest.raises(UsageError, match="a mask as JPEG, which blurs class ids"):
        open_mask(stored(mask_of(IDS, "L"), "JPEG"))
    with pytest.raises(UsageError, match="a mask of fractions"):
        open_mask(stored(Image.fromarray(np.full((2, 2), 0.5, np.float32)), "TIFF"))


def decided(found: dict[int, int], dataset: str = "", **settings: Any) -> Code:
    return code_of({"train": found}, Config(**settings), dataset)


def test_what_the_numbers_in_masks_mean(tmp_path: Path) -> None:
    plain = decided({0: 5, 3: 2, 255: 1})
    assert (plain.ids, plain.names, plain.ignored) == ((0, 3), ("class 0", "class 3"), (255,))
    assert plain.classes(np.array([3, 255, 0])).tolist() == [1, IGNORED, 0]
    binary = decided({0: 5, 255: 5})
    assert (binary.ids, binary.names, binary.ignored) == ((0, 255), ("background", "foreground"), ())
    assert "255 is read as foreground" in binary.note
    one_class_and_void = decided({0: 5, 255: 5}, ignore_index=255)
    assert (one_class_and_void.ids, one_class_and_void.ignored) == ((0,), (255,))
    reduced = decided({0: 5, 1: 5, 2: 5}, reduce_labels=True, classes="wall,sky")
    assert reduced.classes(np.array([0, 1, 2, 255])).tolist() == [IGNORED, 0, 1, IGNORED]
    assert reduced.names == ("wall", "sky")
    (tmp_path / "id2label.json").write_text(json.dumps({"0": "sky", "1": "road", "11": "void"}))
    named = decided({0: 1, 11: 4}, str(tmp_path), ignore_index=11)
    assert (named.ids, named.names, named.ignored) == ((0, 1), ("sky", "road"), (11, 255))
    with pytest.raises(UsageError, match="a mask holds 5, which no class has; expected 0, 1 and 11, 255"):
        named.classes(np.array([5]))
    with pytest.raises(UsageError, match="1,002 different numbers"):
        decided(dict.fromkeys(range(1002), 1))
    with pytest.raises(UsageError, match="expected different names"):
        decided({0: 1, 1: 1}, classes="sky,sky")


def test_what_is_ignored_and_how_ids_are_shifted_is_said(tmp_path: Path) -> None:
    """Names also stand beside a sample of the data; a number that no mask holds is likely a mistake."""
    (tmp_path / "id2label.json").write_text(json.dumps({"0": "sky", "1": "road", "2": "tree"}))
    found = {0: 5, 1: 4, 2: 3}
    assert (
        decided(found, f"{tmp_path}#12", ignore_index=1).note
        == "2 classes, named by id2label.json; id 1 (road) ignored"
    )
    assert decided(found, str(tmp_path), ignore_index=99).note.endswith("; --ignore-index 99 is in no mask")
    assert decided(found, str(tmp_path), reduce_labels=True).note.endswith("id 0 ignored; 1 in the masks is sky")


def test_255_is_ignored_beside_a_given_number() -> None:
    """As it is without one: unless it has a name, or nothing is to be ignored."""
    both = decided({0: 5, 1: 5, 2: 5, 255: 5}, classes="a,void,b", ignore_index=1)
    assert (both.ids, both.names, both.ignored) == ((0, 2), ("a", "b"), (1, 255))
    assert both.classes(np.array([0, 1, 2, 255])).tolist() == [0, IGNORED, 1, IGNORED]
    border = decided({0: 5, 128: 5, 255: 5}, ignore_index=128)
    assert (border.ids, border.names, border.ignored) == ((0, 255), ("background", "foreground"), (128,))
    assert decided({0: 5, 1: 5, 255: 5}, ignore_index=-1).ids == (0, 1, 255)
    named = decided({0: 5, 1: 5, 255: 5}, classes=",".join(map(str, range(256))), ignore_index=1)
    assert named.ignored == (1,) and 255 in named.ids


def test_a_narrow_picture_is_drawn_no_higher_than_wide() -> None:
    """A strip would become a sheet that no JPEG can hold."""
    picture, maps = Image.new("RGB", (1, 400)), np.zeros((400, 1), int)
    strip = sheet([(picture, maps), (Image.new("RGB", (300, 200)), np.zeros((200, 300), int))], ("a",))
    assert strip.width == 480 and strip.height < 500
    stored(strip, "JPEG")


def test_scores_are_those_of_the_pixels_of_the_drawn_pictures() -> None:
    random = np.random.default_rng(0)
    pairs = [(random.integers(-1, 4, (5, 9)), random.integers(0, 4, (5, 9))) for _ in range(6)]
    found = scores(*tallies(pairs, 5))
    for weights in (np.ones(6), np.array([0, 3, 0, 1, 2, 0])):
        expected, given = (
            np.concatenate([np.repeat(p[k].ravel(), int(w)) for p, w in zip(pairs, weights, strict=True)])
            for k in (0, 1)
        )
        given = np.where(expected < 0, -1, given)
        ious, dices, recalls = [], [], []
        for k in range(4):
            hits, truth, said = ((expected == k) & (given == k)).sum(), (expected == k).sum(), (given == k).sum()
            ious.append(hits / (truth + said - hits))
            dices.append(2 * hits / (truth + said))
            recalls.append(hits / truth)
        wanted = {
            "mean_iou": np.mean(ious),
            "mean_dice": np.mean(dices),
            "mean_accuracy": np.mean(recalls),
            "pixel_accuracy": (expected == given)[expected >= 0].mean(),
        }
        assert {name: score(weights[None])[0] for name, score in found.items()} == pytest.approx(wanted)
    matrix = confusion(pairs, 5)
    assert matrix.sum() == sum((p[0] >= 0).sum() for p in pairs)
    each = {one["name"]: one for one in per_class(*tallies(pairs, 5), "abcde")}
    assert each["a"]["iou"] == pytest.approx(matrix[0, 0] / (matrix[0].sum() + matrix[:, 0].sum() - matrix[0, 0]))
    assert each["e"]["iou"] is None and each["e"]["rows"] == 0


def test_a_picture_by_itself_scores_as_one_drawn_alone_in_little_memory() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (3, 2_000, 3))
    counts[0] = counts.min(axis=0)
    counts[:, 0] = 0
    tracemalloc.start()
    each = row_ious(*counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with np.errstate(invalid="ignore"):
        alone = scores(*counts[:, :50])["mean_iou"](np.eye(50))
    assert np.isnan(each[0]) and np.array_equal(each[:50], alone, equal_nan=True)
    assert peak < 2_000 * 3 * 8 * 20


def write_pair(folder: Path, name: str, picture: Image.Image, mask: Image.Image, exif: Any = None) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    picture.save(folder / "images" / f"{name}.jpg", exif=exif or Image.Exif())
    mask.save(folder / "masks" / f"{name}_mask.png")


def loaded(folder: Path, **settings: Any) -> Any:
    run = Run(task=TASK, dataset=str(folder), task_config=Config(**settings), output_dir="none")
    return load_data(run, SemanticSegmentation)


def test_folders_tables_and_columns_give_the_same_rows(tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", {"train": 4, "test": 2})
    first = loaded(tmp_path / "a")
    lines = []
    for split, number in (("train", 4), ("test", 2)):
        for kind in ("images", "masks"):
            (tmp_path / "b" / kind / split).mkdir(parents=True)
            for i in range(number):
                text = (tmp_path / "a" / split / kind / f"{split}{i}.png").read_bytes()
                (tmp_path / "b" / kind / split / f"{split}{i}.png").write_bytes(text)
        rows = [f"a/{split}/images/{split}{i}.png,a/{split}/masks/{split}{i}.png" for i in range(number)]
        lines = ["picture,seg_map", *rows]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "b" / "id2label.json").write_text((tmp_path / "a" / "id2label.json").read_text())
    (tmp_path / "table").mkdir()
    for split in ("train", "test"):
        text = (tmp_path / f"{split}.csv").read_text().replace("a/", "../a/")
        (tmp_path / "table" / f"{split}.csv").write_text(text)
    (tmp_path / "table" / "id2label.json").write_text((tmp_path / "a" / "id2label.json").read_text())
    for other in (loaded(tmp_path / "b"), loaded(tmp_path / "table" / "train.csv", classes=",".join(NAMES))):
        task = SemanticSegmentation.from_data(
            other, Run(task=TASK, dataset="x", task_config=Config(classes=",".join(NAMES)))
        )
        for name in ("image", "mask"):
            mine, theirs = ({Path(v["path"]).name for v in data["train"][name]} for data in (first, other))
            assert theirs <= mine
        assert task.label_names == NAMES
    assert first["train"].num_rows == 4 and first["test"].num_rows == 2


def test_a_mask_belongs_to_the_picture_of_its_whole_name(tmp_path: Path) -> None:
    for kind, names in (("images", ("a", "a_l", "b_l")), ("masks", ("a_l", "a", "b_l_mask", "c"))):
        (tmp_path / kind).mkdir()
        for name in names:
            Image.new("L", (4, 4)).save(tmp_path / kind / f"{name}.png")
    read, notes = read_mask_folders(mask_folders(tmp_path))
    pairs = [[Path(row[kind]["path"]).stem for kind in ("image", "mask")] for row in read["train"]]
    assert pairs == [["a", "a"], ["a_l", "a_l"], ["b_l", "b_l_mask"]]
    assert "1 masks" in notes[0]
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "a_mask.png")
    with pytest.raises(UsageError, match=r"masks: a\.png and a_mask\.png are both masks of a; expected one"):
        read_mask_folders(mask_folders(tmp_path))


def test_metadata_may_name_pictures_and_masks_beside_a_file_of_classes(tmp_path: Path) -> None:
    write_shapes(tmp_path, {"train": 4, "test": 2})
    for split, number in (("train", 4), ("test", 2)):
        rows = [{f"{kind}_file_name": f"{kind}s/{split}{i}.png" for kind in ("image", "mask")} for i in range(number)]
        (tmp_path / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = loaded(tmp_path)
    assert [Path(row["mask"]["path"]).name for row in data["test"]] == ["test0.png", "test1.png"]
    run = Run(task=TASK, dataset=str(tmp_path), task_config=Config())
    assert SemanticSegmentation.from_data(data, run).label_names == NAMES


def test_audit_names_masks_of_another_size_numbers_that_no_class_has_and_one_class(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    random = np.random.default_rng(1)
    grey = Image.fromarray(random.integers(0, 255, (20, 30, 3)).astype(np.uint8))
    good = Image.fromarray((np.arange(600).reshape(20, 30) % 2).astype(np.uint8))
    turned = Image.Exif()
    turned[274] = 6
    write_pair(tmp_path / "size", "a", grey, good)
    write_pair(tmp_path / "size", "b", grey, good.resize((15, 10)))
    write_pair(tmp_path / "size", "c", grey, good, turned)
    with pytest.raises(UsageError) as size:
        loaded(tmp_path / "size")
    assert "row 2: the mask has 15 × 10 pixels, its picture 30 × 20; they must be alike" in str(size.value)
    assert "row 3" in str(size.value) and "turned by its EXIF data, the mask is not?" in str(size.value)
    write_pair(tmp_path / "ids", "a", grey, good)
    write_pair(tmp_path / "ids", "b", grey, Image.fromarray(np.full((20, 30), 9, np.uint8)))
    write_pair(tmp_path / "ids", "c", grey, good)
    with pytest.raises(UsageError, match="row 2: the mask holds 9, which no class has; expected 0, 1 and 255"):
        loaded(tmp_path / "ids", classes="ground,thing")
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "one", name, grey, Image.new("L", (30, 20), 0))
    with pytest.raises(UsageError, match=r'one class only \("class 0"\): nothing to learn'):
        loaded(tmp_path / "one")
    (tmp_path / "ids" / "masks" / "b_mask.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 pictures have no mask of their name in masks/: b\.jpg"):
        loaded(tmp_path / "ids")
    void = np.full((20, 30), 255, np.uint8)
    void[0, :2] = (0, 1)
    for number, name in enumerate(("a", "d", "e", "f")):
        shade = Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8))
        write_pair(tmp_path / "void", name, shade, Image.fromarray(void))
    write_pair(tmp_path / "void", "b", grey.rotate(90, expand=True), good.rotate(90, expand=True))
    write_pair(tmp_path / "void", "c", grey.rotate(180), Image.new("L", (30, 20), 255))
    loaded(tmp_path / "void", classes="ground,thing,never")
    said = "".join(capsys.readouterr())
    assert "of the pixels ignored" in said and "is one of these a class?" in said
    assert "1 of 3 classes are in no mask of train: never" in said
    assert "masks hold nothing but ignored pixels" in said
    loaded(tmp_path / "void", classes="ground,Unlabelled")
    assert 'the class "Unlabelled" sounds like pixels without a class: --ignore-index 1' in "".join(capsys.readouterr())


@pytest.fixture
def ready(tiny: Any) -> tuple[SemanticSegmentation, Any, Any]:
    """The tiny task, its processor and its training rows."""
    run = Run(
        task=TASK, dataset=str(tiny(TASK).data), model=str(tiny(TASK).model), task_config=Config(), output_dir="x"
    )
    data = load_data(run, SemanticSegmentation)
    task = SemanticSegmentation.from_data(data, run)
    return task, load_processor(run, task), data["train"]


def test_picture_and_mask_are_cut_and_mirrored_together(ready: Any) -> None:
    task, processor, rows = ready
    collate = task.collate(processor)
    chosen = [{**row, "row": i, "epoch": epoch} for epoch in range(3) for i, row in enumerate(rows.to_list())]
    batch, again = collate(chosen), collate(chosen)
    assert batch["pixel_values"].shape[-2:] == batch["labels"].shape[-2:] == (64, 64)
    assert torch.equal(batch["pixel_values"], again["pixel_values"]) and torch.equal(batch["labels"], again["labels"])
    first, second = (batch["labels"][i * len(rows)] for i in (0, 1))
    assert not torch.equal(first, second), "every epoch is cut anew"
    red, blue = (batch["pixel_values"][:, k] for k in (0, 2))
    seen = torch.where(red - blue > 1.5, 1, torch.where(blue - red > 1.5, 2, 0))
    known = batch["labels"] >= 0
    assert (seen == batch["labels"])[known].float().mean() > 0.97
    assert (~known).any()


def test_filler_and_ignored_pixels_count_for_nothing(ready: Any) -> None:
    task, processor, rows = ready
    collate = task.collate(processor)
    row = rows[0]
    whole = collate([{**row, "row": 0, "epoch": 0}])
    filled = collate([{**row, "row": 0, "epoch": 0}, {**row, "row": -1, "epoch": 0}])
    assert task.items(filled) == task.items(whole) == (whole["labels"] >= 0).sum()
    logits = torch.randn(2, 3, 16, 16)

    def model(pixel_values: Any) -> dict[str, Any]:
        return {"logits": logits[: len(pixel_values)]}

    values = [task.loss(model, dict(batch)) for batch in (whole, filled)]
    assert values[0] == pytest.approx(float(values[1])) and values[0] > 0


def test_answers_have_the_size_of_their_picture_and_show_what_is_not_finite(ready: Any) -> None:
    task, processor, rows = ready
    batch = task.collate(processor)([{"image": row["image"]} for row in rows.select(range(2))])
    logits = torch.randn(2, 3, 16, 16)
    logits[1, 0, 0, 0] = float("nan")
    kept = task.outputs(lambda pixel_values: {"logits": logits}, batch)
    assert [one.shape for one in kept] == [(row["height"], row["width"]) for row in rows.select(range(2))]
    assert kept[0].dtype == np.uint8 and np.isnan(kept[1]).all()
    rows = rows.select(range(2))
    assert np.isnan(task.quick(kept, None, rows)["mean_iou"])
    answer = task.answers(kept[:1], None, rows, processor)[0]
    assert sum(answer["prediction"].values()) == pytest.approx(1, abs=1e-5)
    assert (open_mask(answer["predicted_mask"]) == kept[0]).all()
    assert (open_mask(as_png(np.array([[0, 299]]), 300)) == [[0, 299]]).all()


@pytest.mark.parametrize("method", ["full", "lora", "head-only"])
@pytest.mark.parametrize("tf_padding", [False, True])
def test_a_head_with_batch_norms_for_other_classes_is_made_new_and_comes_back(
    method: str, tf_padding: bool, tiny: Any, tmp_path: Path
) -> None:
    setup = Tiny(make_mobilenet(tmp_path / "model", tf_padding), tiny(TASK).data)
    report = train(TASK, method, setup, tmp_path / "run", **QUICK)
    assert all(proof["passed"] for proof in report.proofs)
    saved = restore(tmp_path / "run")
    assert saved.task.label_names == NAMES


def test_it_learns_colours_and_says_where_it_is_wrong(tiny: Any, tmp_path: Path) -> None:
    settings = {**QUICK, "max_steps": 120, "augment": "none", "learning_rate": 5e-3}
    report = train(TASK, "full", tiny(TASK), tmp_path / "run", **settings)
    found, always = report.metrics["test"], report.baselines["majority"]["test"]
    assert found["mean_iou"]["value"] > 0.6 > always["mean_iou"]["value"]
    assert (tmp_path / "run" / "figures" / "masks.png").is_file()
    pixels, mask = shapes(np.random.default_rng(7))
    Image.fromarray(pixels).save(tmp_path / "new.png")
    answer = predict(tmp_path / "run", [str(tmp_path / "new.png")])[0]
    given = open_mask(answer["predicted_mask"])
    assert given.shape == mask.shape and (given == mask)[mask < 255].mean() > 0.85


def test_worst_pictures_are_named_as_the_sheet_names_them(ready: Any) -> None:
    task, processor, rows = ready
    rows = rows.select(range(3))
    kept = [np.where(mask == 255, 0, mask).astype(np.uint8) for mask in map(decoded_mask, rows["mask"])]
    kept[1] = np.zeros_like(kept[1])
    worst = task.worst(kept, None, rows, processor)
    assert [one["score"] for one in worst[1:]] == [1.0, 1.0] and worst[0]["score"] < 1
    assert worst[0]["text"] == place_of(rows[1]["image"], 1)
    assert place_of({"path": None}, 1) == "picture 2"


def test_class_weights_count_pixels(tiny: Any, tmp_path: Path) -> None:
    plain = train(TASK, "lora", tiny(TASK), tmp_path / "a", **QUICK, verify=False)
    heavy = train(TASK, "lora", tiny(TASK), tmp_path / "b", **QUICK, verify=False, class_weights="auto")
    assert plain.metrics["test"]["mean_iou"]["value"] is not None
    read = [json.loads((tmp_path / one / "log.jsonl").read_text().splitlines()[0]) for one in "ab"]
    assert read[0] != read[1] and heavy.proofs
