"""Instance segmentation as a whole: truth given as found is perfect, the loss is a sum, outputs are the processor's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tasks import instance_segmentation as tiny

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.intervals import measured
from hf_tuner.evaluation.loop import take
from hf_tuner.evaluation.predict import encoded
from hf_tuner.evaluation.verify import compare
from hf_tuner.methods import dora
from hf_tuner.models.head import head_modules, listed_modules
from hf_tuner.models.load import sketch_head
from hf_tuner.models.targets import find_targets
from hf_tuner.tasks._segment_loss import require_known, summed_loss
from hf_tuner.tasks._segments import from_masks, known_of, packed, unpacked
from hf_tuner.tasks.instance_segmentation import Config, InstanceSegmentation

KINDS = ("mask2former", "maskformer", "eomt")


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, InstanceSegmentation, dict[str, Any], dict[str, Any]]:
    """Rows, task, encoded rows and the processor of each kind of model."""
    from transformers import AutoImageProcessor

    place = tmp_path_factory.mktemp("instances")
    tiny.write_things(place / "data", {"train": 12, "test": 6})
    run = Run(task="instance-segmentation", dataset=str(place / "data"), task_config=Config(augment="none"))
    data = load_data(run, InstanceSegmentation)
    task = InstanceSegmentation.from_data(data, run)
    processors = {
        kind: AutoImageProcessor.from_pretrained(getattr(tiny, f"make_{kind}")(place / kind)) for kind in KINDS
    }
    for processor in processors.values():
        task.dress(processor)
    return data, task, {kind: encoded(task, one, data["train"], 0) for kind, one in processors.items()}, processors


def model_of(kind: str, **settings: Any) -> Any:
    """A small segmenter for the two labels of the pictures."""
    return getattr(tiny, kind)(num_labels=2, **settings)


def perfect(task: Any, ready: Any) -> list[np.ndarray]:
    """What a model would keep that finds everything."""
    kept = []
    for row in ready:
        height, width = task_size(row)
        known = known_of(row, height, width, task.ids, task.stuff)
        kept.append(packed(from_masks(known.masks, np.full(len(known.label), 0.9), known.label)))
    return kept


def task_size(row: Any) -> tuple[int, int]:
    """Height and width of a row's picture."""
    from hf_tuner.tasks._vision import decoded

    picture = decoded(row["image"])
    return picture.height, picture.width


def test_what_is_expected_given_as_found_is_perfect(setup: Any) -> None:
    """On pictures none of which is square, and all of different sizes; in pixels as predict gives them."""
    data, task, ready, _ = setup
    rows = ready["mask2former"]
    assert len({(row["width"], row["height"]) for row in data["train"].remove_columns("image")}) > 6
    kept = perfect(task, rows)
    scores = measured(task, kept, rows, data["train"])
    assert next(iter(scores)) == "map"
    for name in ("map", "map_50", "map_75", "mar_100", "ap_bar", "ap_disc"):
        assert scores[name]["value"] == pytest.approx(1.0), name
        assert scores[name]["low"] == pytest.approx(1.0)
    moved = []
    for one in map(unpacked, kept):
        moved.append(packed(from_masks(np.roll(one.masks(), 9, axis=(1, 2)), one.score, one.label)))
    assert measured(task, moved, rows, data["train"])["map"]["value"] < 0.2
    first = task.answers(kept, rows, data["train"], None)[0]["prediction"]
    assert {one["label"] for one in first} <= {"bar", "disc"} and first[0]["segmentation"]["size"] == list(
        task_size(rows[0])
    )
    assert all(one["box"][0] < one["box"][2] and one["box"][1] < one["box"][3] for one in first)
    drawn = task.drawn(kept, rows, data["train"], None)
    assert len(drawn) == 8 and drawn[0].image.width > 480


def test_what_is_kept_comes_back_as_it_was() -> None:
    random = np.random.default_rng(0)
    masks = random.random((3, 11, 17)) < 0.4
    found = unpacked(packed(from_masks(masks, [0.25, 0.5, 0.125], [4, 0, 2])))
    assert (found.masks() == masks).all() and (found.height, found.width) == (11, 17)
    assert found.score.tolist() == [0.25, 0.5, 0.125] and found.label.tolist() == [4, 0, 2]
    nothing = unpacked(packed(from_masks(np.zeros((0, 5, 6), bool), [], [])))
    assert nothing.masks().shape == (0, 5, 6) and nothing.bits().shape[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_models_own_times_masks_and_a_sum_over_pictures(kind: str, setup: Any) -> None:
    """With so many points that chance hardly matters, the model's own loss of a batch; exactly a sum over its parts."""
    _, task, ready, processors = setup
    rows = [{**row, "row": number, "epoch": 0} for number, row in enumerate(take(ready[kind], range(8)))]
    many = {} if kind == "maskformer" else {"train_num_points": 6000}
    model, collate = model_of(kind, **many).eval(), task.collate(processors[kind])
    whole = collate(rows)
    masks = int(task.items(whole))
    assert masks == sum(len(row["labels"]) for row in rows) > 8
    known = whole["class_labels"] >= 0
    own = model(
        pixel_values=whole["pixel_values"],
        mask_labels=[one[k].float() for one, k in zip(whole["mask_labels"], known, strict=True)],
        class_labels=[one[k] for one, k in zip(whole["class_labels"], known, strict=True)],
    )["loss"]
    ours = summed_loss(model, whole, density=masks / 8)
    torch.testing.assert_close(ours, own * masks, rtol=1e-4 if kind == "maskformer" else 0.01, atol=0.0)
    parts = sum(
        summed_loss(model, collate([rows[i] for i in some]), task.density) for some in ([0, 1, 2], [3], [4, 5, 6, 7])
    )
    torch.testing.assert_close(parts, summed_loss(model, whole, task.density), rtol=2e-5, atol=1e-3)


@pytest.mark.parametrize("kind", ["mask2former", "eomt"])
def test_points_are_drawn_by_seed_epoch_and_row_alone(kind: str, setup: Any) -> None:
    _, task, ready, processors = setup
    model, collate = model_of(kind).eval(), task.collate(processors[kind])
    row = take(ready[kind], [0])[0]
    torch.manual_seed(1)
    first = summed_loss(model, collate([{**row, "row": 5, "epoch": 2}]), 2.0)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert summed_loss(model, collate([{**row, "row": 5, "epoch": 2}]), 2.0) == first
    assert summed_loss(model, collate([{**row, "row": 5, "epoch": 3}]), 2.0) != first
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state), "the loss moved the process's own random numbers"
    assert "forward" not in vars(model.criterion)


def test_filler_and_pictures_without_things(setup: Any) -> None:
    _, task, ready, processors = setup
    model, collate = model_of("mask2former").eval(), task.collate(processors["mask2former"])
    rows = [{**row, "row": number, "epoch": 0} for number, row in enumerate(take(ready["mask2former"], range(4)))]
    filler = {**rows[0], "row": -1}
    both, plain = collate([*rows, filler]), collate(rows)
    assert task.items(both) == task.items(plain)
    torch.testing.assert_close(summed_loss(model, both, 2.0), summed_loss(model, plain, 2.0))
    empty = collate([filler, filler])
    assert task.items(empty) == 0 and summed_loss(model, empty, 2.0) == 0
    assert not rows[3]["labels"], "the fourth picture shows nothing"
    nothing = collate([rows[3]])
    loss = summed_loss(model, nothing, 2.0)
    loss.backward()
    assert task.items(nothing) == 0 and loss > 0
    assert all(p.grad is not None for n, p in model.named_parameters() if "class_predictor" in n)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_stand_where_the_pixels_are(kind: str, setup: Any) -> None:
    """The masks of a batch cover the pixels of their things in the picture that the model reads, padded or not."""
    _, task, ready, processors = setup
    batch = task.collate(processors[kind])(take(ready[kind], range(3)))
    mean, std = (torch.tensor(getattr(processors[kind], name))[:, None, None] for name in ("image_mean", "image_std"))
    for pixels, masks, labels in zip(
        batch["pixel_values"], batch["mask_labels"].bool(), batch["class_labels"], strict=True
    ):
        colours = pixels * std + mean
        for mask, label in zip(masks, labels, strict=True):
            if label >= 0:
                red, green = (float(colours[channel][mask].mean()) for channel in (0, 1))
                assert (red > 0.6) == (task.names[label] == "bar") and (green > 0.6) == (task.names[label] == "disc")
    assert batch["pixel_values"].shape[-2:] == (64, 64)
    padded = batch["inside"].tolist() != [[64, 64]] * 3
    assert padded == (kind == "eomt")


def test_a_cut_moves_masks_with_their_pixels(setup: Any) -> None:
    _, task, ready, processors = setup
    from dataclasses import replace

    processor = processors["mask2former"]
    collate = replace(task, augment="crop").collate(processor)
    rows = [{**row, "row": number, "epoch": 4} for number, row in enumerate(take(ready["mask2former"], range(8)))]
    batch, again = collate(rows), collate(rows[4:])
    assert torch.equal(batch["pixel_values"][4:], again["pixel_values"]), "a row is cut by its own seed"
    assert not torch.equal(batch["pixel_values"], task.collate(processor)(rows)["pixel_values"])
    mean, std = (torch.tensor(getattr(processor, name))[:, None, None] for name in ("image_mean", "image_std"))
    seen = 0
    for pixels, masks, labels in zip(
        batch["pixel_values"], batch["mask_labels"].bool(), batch["class_labels"], strict=True
    ):
        for mask, label in zip(masks, labels, strict=True):
            if label >= 0 and mask.sum() > 60:
                red, green = (float((pixels * std + mean)[channel][mask].mean()) for channel in (0, 1))
                seen += 1
                assert (red > green) == (task.names[label] == "bar")
    assert seen > 5


def test_instances_are_those_of_the_processor(setup: Any) -> None:
    """On a picture of 384 × 384 pixels, where both go by the same pixels."""
    _, task, _, processors = setup
    from hf_tuner.tasks._segment_loss import resized

    torch.manual_seed(0)
    classes, masks = (
        torch.randn(1, 8, 3) * 3,
        torch.nn.functional.interpolate(torch.randn(1, 8, 5, 5) * 4, (96, 96), mode="bicubic"),
    )
    made = {"class_queries_logits": classes, "masks_queries_logits": masks}
    outputs = type("Outputs", (), made)()
    theirs = processors["mask2former"].post_process_instance_segmentation(
        outputs, threshold=0.0, target_sizes=[(384, 384)], return_binary_maps=True)[0]  # fmt: skip
    found, score, label = task.found(classes[0], masks[0], lambda one: resized(one, (96, 96), (96, 96), (384, 384)))
    ours = sorted(zip(score.round(4), label, found.sum((1, 2)), strict=True), key=lambda one: -one[0])[:8]
    pairs = zip(theirs["segments_info"], theirs["segmentation"], strict=True)
    other = sorted(((one["score"], one["label_id"], int(mask.sum())) for one, mask in pairs), key=lambda one: -one[0])
    assert len(other) == 8
    for mine, known in zip(ours, other, strict=True):
        assert mine[0] == pytest.approx(known[0], abs=2e-3) and tuple(mine[1:]) == known[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_read_alike_alone_and_among_others(kind: str, setup: Any) -> None:
    _, task, ready, processors = setup
    model, collate = model_of(kind).eval(), task.collate(processors[kind])
    with torch.no_grad():
        among = [unpacked(one) for one in task.outputs(model, collate(take(ready[kind], range(6))))]
        for index in range(6):
            row = take(ready[kind], [index])
            alone = unpacked(task.outputs(model, collate(row))[0])
            assert (alone.height, alone.width) == task_size(row[0]), "in the picture's own size"
            np.testing.assert_allclose(alone.score, among[index].score, rtol=1e-4, atol=1e-5)
            assert (alone.masks() == among[index].masks()).mean() > 0.999


def test_a_model_that_gives_no_numbers_is_no_good_score(setup: Any) -> None:
    data, task, ready, processors = setup
    model = model_of("mask2former").eval()
    with torch.no_grad():
        model.class_predictor.bias.fill_(float("nan"))
        kept = task.outputs(model, task.collate(processors["mask2former"])(take(ready["mask2former"], range(12))))
    assert all(np.isnan(value) for value in task.quick(kept, ready["mask2former"], data["train"]).values())


@pytest.mark.parametrize("kind, said", [("oneformer", "reads a text"), ("detr", "type detr"), ("bert", "type bert")])
def test_models_that_are_trained_otherwise_are_refused(kind: str, said: str) -> None:
    config = type("Config", (), {"model_type": kind})()
    with pytest.raises(UsageError, match=said):
        require_known(config, 0)


def test_eomt_reads_one_size_only() -> None:
    with pytest.raises(UsageError, match="pictures of 64 pixels only"):
        require_known(model_of("eomt").config, 96)
    require_known(model_of("eomt").config, 64)
    require_known(model_of("mask2former").config, 96)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_the_card_find_masks_with_a_loaded_model(kind: str, setup: Any, capsys: pytest.CaptureFixture) -> None:
    _, task, _, processors = setup
    exec("\n".join(task.usage(0).lines), {"model": model_of(kind).eval(), "processor": processors[kind]})  # noqa: S102 - ours
    assert capsys.readouterr().out.strip().endswith("found")


def test_a_rounding_changes_little_of_what_is_compared() -> None:
    masks = np.zeros((2, 40, 50), bool)
    masks[0, :20], masks[1, 10:30] = True, True
    moved = masks.copy()
    moved[0, 19, 49] = False
    kept = [[packed(from_masks(one, np.array(scores, np.float32), np.array([0, 1])))]
            for one, scores in ((masks, [0.5, 0.7]), (moved, [0.500001, 0.699999]))]  # fmt: skip
    task = InstanceSegmentation(names=("bar", "disc"))
    assert not compare("bits", *kept, 1e-5).passed
    assert compare("seen", *map(task.roughly, kept), 1e-5).passed
    assert not compare("seen", task.roughly(kept[0]), [np.zeros((40, 50), np.int64)], 1e-5).passed


def test_layers_called_out_of_a_list_stay_out_of_quantisation() -> None:
    model = tiny.mask2former()
    kept = listed_modules(model)
    predictors = [
        name for name, module in model.named_modules() if type(module).__name__ == "Mask2FormerPredictionBlock"
    ]
    assert predictors and set(kept) >= {f"{name}.0" for name in predictors}
    assert set(kept) <= set(sketch_head(model, False))


def test_layers_without_a_direction_get_no_dora(capsys: pytest.CaptureFixture) -> None:
    model = tiny.mask2former()
    targets = find_targets(model, head_modules(model), "all-linear")
    flat = [name for name in targets.selected if not model.get_submodule(name).weight.any()]
    adapted = dora.adapt(model, dora.Config(r=2), targets).base_model.targeted_module_names
    assert flat and adapted and not set(flat) & set(adapted)
    assert f"{len(flat)} layers have rows of zeros" in capsys.readouterr().out


@pytest.mark.slow
def test_twelve_pictures_can_be_learned(tmp_path: Path) -> None:
    """A small Mask2Former finds the things of the pictures it was trained on."""
    from transformers import Mask2FormerImageProcessor

    from hf_tuner import finetune

    tiny.write_things(tmp_path / "data", {"train": 12})
    for split in ("validation", "test"):
        (tmp_path / "data" / split).mkdir()
        for path in (tmp_path / "data" / "train").iterdir():
            (tmp_path / "data" / split / path.name).write_bytes(path.read_bytes())
    wide = {
        "feature_size": 64,
        "mask_feature_size": 64,
        "hidden_dim": 64,
        "num_attention_heads": 4,
        "train_num_points": 512,
    }
    tiny.mask2former(**wide).save_pretrained(tmp_path / "model")
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "model")
    report = finetune(
        "instance-segmentation", model=str(tmp_path / "model"), dataset=str(tmp_path / "data"), method="full",
        output_dir=str(tmp_path / "run"), augment="none", num_train_epochs=200, per_device_train_batch_size=6,
        learning_rate=1e-3, bf16=False, save_strategy="no", eval_strategy="no", verify=False, logging_steps=50,
    )  # fmt: skip
    assert report.metrics["test"]["map_50"]["value"] >= 0.8
