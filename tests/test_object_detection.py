"""Detection as a whole: what is expected given as found is perfect, outputs are the processor's, the loss is a sum."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tasks.object_detection import make_detr, write_pictures

from hf_tuner.config import Run
from hf_tuner.data.load import load_data
from hf_tuner.evaluation.intervals import measured
from hf_tuner.evaluation.loop import take
from hf_tuner.evaluation.predict import encoded
from hf_tuner.models.convnets import settle_norms
from hf_tuner.tasks._box_loss import bare, detections, inputs, is_softmax, summed_loss, targets
from hf_tuner.tasks._vision import decoded
from hf_tuner.tasks.object_detection import Config, ObjectDetection


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ObjectDetection, Any, Any]:
    """Rows, task, encoded rows and processor."""
    from transformers import DetrImageProcessor

    place = tmp_path_factory.mktemp("detection")
    write_pictures(place / "data", {"train": 12, "test": 6})
    run = Run(task="object-detection", dataset=str(place / "data"), task_config=Config(augment="none"))
    data = load_data(run, ObjectDetection)
    task, processor = (
        ObjectDetection.from_data(data, run),
        DetrImageProcessor.from_pretrained(make_detr(place / "model")),
    )
    return data, task, encoded(task, processor, data["train"], 0), processor


def model_of(kind: str) -> Any:
    """A small detector for the two labels of the pictures."""
    import transformers as t

    t.set_seed(0)
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "decoder_layers"), 2)
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 32)
    small: dict[str, Any] = {"num_labels": 2, "num_queries": 8, "encoder_layers": 1, "dropout": 0.0, **heads, **sizes}
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    own = {"backbone_config": backbone, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    if kind == "yolos":
        wide = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        return t.YolosForObjectDetection(
            t.YolosConfig(**wide, image_size=[64, 64], patch_size=16, num_detection_tokens=8, num_labels=2)
        )
    if kind == "conditional-detr":
        return t.ConditionalDetrForObjectDetection(t.ConditionalDetrConfig(**small, **own))
    more = {"auxiliary_loss": True} if kind == "detr with auxiliary losses" else {}
    return t.DetrForObjectDetection(t.DetrConfig(**small, **own, **more))


KINDS = ("detr", "detr with auxiliary losses", "yolos", "conditional-detr")


@pytest.mark.fault(39)
def test_what_is_expected_given_as_found_is_perfect(setup: Any) -> None:
    """On pictures none of which is square, and all of different sizes; in pixels as predict gives them."""
    data, task, ready, _ = setup
    assert len({(row["width"], row["height"]) for row in data["train"].remove_columns("image")}) > 6
    kept = [np.array([[*box, 0.9, label] for box, label in zip(row["boxes"], row["labels"], strict=True)], float).reshape(-1, 6)
            for row in ready.remove_columns("image")]  # fmt: skip
    scores = measured(task, kept, ready, data["train"])
    assert next(iter(scores)) == "map"
    for name in ("map", "map_50", "map_75", "mar_100", "ap_red", "ap_green"):
        assert scores[name]["value"] == pytest.approx(1.0), name
        assert scores[name]["low"] == pytest.approx(1.0)
    moved = [one + np.array([one[:, 2].max(initial=0), 0, one[:, 2].max(initial=0), 0, 0, 0]) for one in kept]
    assert measured(task, moved, ready, data["train"])["map"]["value"] < 0.2
    answers = task.answers(kept, ready, data["train"], None)
    assert [one["box"] for one in answers[0]["prediction"]] == [row[:4].tolist() for row in kept[0]]
    drawn = task.drawn(kept, ready, data["train"], None)
    assert len(drawn) == 8 and drawn[0].image.width > 480


@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_those_of_the_processor(kind: str, setup: Any) -> None:
    from transformers import ConditionalDetrImageProcessor

    _, task, ready, processor = setup
    model = model_of(kind).eval()
    batch = task.collate(processor)(take(ready, range(5)))
    with torch.no_grad():
        made = model(**inputs(model, batch))
    other = ConditionalDetrImageProcessor() if kind == "conditional-detr" else processor
    expected = other.post_process_object_detection(made, threshold=0.0, target_sizes=batch["sizes"])
    for ours, theirs in zip(detections(made, bare(model).config, batch["sizes"]), expected, strict=True):
        flat = torch.cat([theirs["boxes"], theirs["scores"][:, None], theirs["labels"][:, None].float()], dim=1)
        one, two = (part[part[:, 4].argsort(descending=True, stable=True)] for part in (ours, flat))
        torch.testing.assert_close(one[:, 4], two[:, 4])
        order = [part[np.lexsort(part.numpy().round(3).T)] for part in (one, two)]
        torch.testing.assert_close(order[0], order[1], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_models_own_times_boxes_and_a_sum_over_pictures(kind: str, setup: Any) -> None:
    _, task, ready, processor = setup
    model, collate = model_of(kind).eval(), task.collate(processor)
    whole = collate(take(ready, range(8)))
    boxes = int(task.items(whole))
    assert boxes == sum(len(one["class_labels"]) for one in targets(whole)) > 8
    own = model(**inputs(model, whole), labels=targets(whole))["loss"]
    torch.testing.assert_close(summed_loss(model, whole, density=boxes / 8), own * boxes)
    parts = sum(
        summed_loss(model, collate(take(ready, index)), task.density) for index in ([0, 1, 2], [3], [4, 5, 6, 7])
    )
    torch.testing.assert_close(parts, summed_loss(model, whole, task.density), rtol=2e-5, atol=1e-4)
    assert is_softmax(model(**inputs(model, whole))["logits"], model.config) == (kind != "conditional-detr")


def test_filler_counts_for_nothing(setup: Any) -> None:
    _, task, ready, processor = setup
    model, collate = model_of("detr").eval(), task.collate(processor)
    rows = [{**row, "row": number, "epoch": 0} for number, row in enumerate(take(ready, range(4)))]
    filler = {**rows[0], "row": -1}
    both, plain = collate([*rows, filler]), collate(rows)
    assert task.items(both) == task.items(plain)
    torch.testing.assert_close(summed_loss(model, both, 2.0), summed_loss(model, plain, 2.0))
    empty = collate([filler, filler])
    assert task.items(empty) == 0 and summed_loss(model, empty, 2.0) == 0


def test_a_picture_is_read_alike_alone_and_among_others(setup: Any) -> None:
    _, task, ready, processor = setup
    model, collate = model_of("yolos").eval(), task.collate(processor)
    with torch.no_grad():
        among = task.outputs(model, collate(take(ready, range(6))))
        for index in range(6):
            alone = task.outputs(model, collate(take(ready, [index])))[0]
            np.testing.assert_allclose(alone, among[index], rtol=1e-4, atol=1e-3)


def test_yolos_with_pictures_of_one_size_reads_what_other_code_gives_it(setup: Any) -> None:
    """It reads no mask: padding would change its boxes."""
    from transformers import YolosImageProcessor

    _, task, ready, _ = setup
    model, processor = model_of("yolos").eval(), YolosImageProcessor(size={"height": 64, "width": 96})
    batch = task.collate(processor)(take(ready, range(5)))
    assert batch["pixel_mask"].all() and "pixel_mask" not in inputs(model, batch)
    alone = processor(decoded(take(ready, [0])[0]["image"]), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(batch["pixel_values"][0], alone)


@pytest.mark.parametrize("policy, learns", [("auto", True), ("frozen", False)])
def test_norms_that_never_saw_a_batch_train_unless_told(policy: str, learns: bool) -> None:
    """A detector made around an ImageNet backbone has such norms in its encoder; without statistics they norm nothing."""
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2))
    model[0].running_mean += 0.5
    assert settle_norms(model, policy, ObjectDetection.batch_norm, "model", True) == "frozen"
    before = [norm.running_mean.clone() for norm in model]
    model.train()(torch.randn(8, 2) + 1)
    moved = [not torch.equal(norm.running_mean, mean) for norm, mean in zip(model, before, strict=True)]
    assert moved == [norm.weight.requires_grad for norm in model] == [False, learns]


@pytest.mark.slow
def test_twenty_pictures_can_be_learned(tmp_path: Path) -> None:
    """A YOLOS of two blocks finds nine of ten rectangles of the pictures it was trained on."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor, set_seed

    from hf_tuner import finetune

    write_pictures(tmp_path / "data", {"train": 20, "test": 2})
    for path in (tmp_path / "data" / "train").iterdir():
        (tmp_path / "data" / "test" / path.name).write_bytes(path.read_bytes())
    set_seed(0)
    config = YolosConfig(hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, image_size=[64, 64],
                         patch_size=8, num_detection_tokens=12, num_labels=5)  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(tmp_path / "model")
    YolosImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "model")
    report = finetune(
        "object-detection", model=str(tmp_path / "model"), dataset=str(tmp_path / "data"), method="full",
        output_dir=str(tmp_path / "run"), augment="none", num_train_epochs=700, per_device_train_batch_size=10,
        learning_rate=1e-3, bf16=False, save_strategy="no", verify=False, logging_steps=50,
    )  # fmt: skip
    assert report.metrics["test"]["map_50"]["value"] >= 0.9


def test_backbone_learns_at_a_tenth_of_the_rate() -> None:
    from hf_tuner import catalog

    model = model_of("detr").requires_grad_(True)
    plug = catalog.load("optimizers", "backbone-rate")
    made = plug.groups(model, plug.Config(), 1e-4, 0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in made for p in group["params"]}
    assert len(rates) == len([p for p in model.parameters() if p.requires_grad])
    assert {round(rate / 1e-4, 6) for name, rate in rates.items() if ".backbone." in name} == {0.1}
    assert {round(rate / 1e-4, 6) for name, rate in rates.items() if ".backbone." not in name} == {1.0}


def test_lines_of_the_card_find_boxes_with_a_loaded_model(setup: Any, capsys: pytest.CaptureFixture) -> None:
    _, task, _, processor = setup
    exec("\n".join(task.usage(0).lines), {"model": model_of("detr").eval(), "processor": processor})  # noqa: S102 - ours
    assert capsys.readouterr().out.strip().endswith("found")
    shown = task.reads_as(processor)
    assert "with padding" in shown and "× 64" in shown
