"""Models of timm: read in both forms they come in, trained, saved and found again like every other model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_tasks.image_classification import COLOURS, write_picture
from transformers import AutoImageProcessor, AutoModelForImageClassification, TimmWrapperConfig, set_seed

from hf_tuner import catalog, finetune
from hf_tuner.cli.main import main
from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.models import safety
from hf_tuner.models.foreign import processor_of
from hf_tuner.models.head import head_modules
from hf_tuner.models.load import load_base, load_config
from hf_tuner.models.restore import restore
from hf_tuner.models.targets import find_layers, find_targets
from hf_tuner.models.timm_models import needs_timm
from hf_tuner.tasks._labels import Labels
from hf_tuner.tasks._vision import input_size
from hf_tuner.tasks.image_classification import ImageClassification

TASK = "image-classification"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def checkpoint(folder: Path, architecture: str, names: tuple[str, ...], raw: bool = False, **cut: Any) -> Path:
    """A small model of timm for pictures of 32 pixels: as transformers saves it, or (`raw`) as timm does."""
    set_seed(0)
    how = {"architecture": architecture, "input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.4] * 3,
           "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center", **cut}  # fmt: skip
    config = TimmWrapperConfig(architecture=architecture, pretrained_cfg=how, id2label=dict(enumerate(names)))
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    if raw:
        plain = {"architecture": architecture, "num_classes": len(names), "label_names": names, "pretrained_cfg": how}
        (folder / "config.json").write_text(json.dumps(plain))
        weights = load_file(folder / "model.safetensors")
        save_file(
            {key.removeprefix("timm_model."): value for key, value in weights.items()}, folder / "model.safetensors"
        )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test pictures of each colour."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, number in (("train", 6), ("test", 2)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                write_picture(folder / split / name / f"{index}.png", colour, random)
    return folder


def on_meta(architecture: str) -> Any:
    with torch.device("meta"):
        return AutoModelForImageClassification.from_config(TimmWrapperConfig(architecture=architecture, num_labels=7))


def task_of(*names: str) -> ImageClassification:
    return ImageClassification(labels=Labels("single", names, "a test"))


def test_an_adapter_on_timms_own_files_is_saved_verified_and_predicts(pictures: Path, tmp_path: Path) -> None:
    """With new classes; the head starts from frozen features, and how pictures are read is saved beside the adapter."""
    model = checkpoint(tmp_path / "model", "test_vit", ("a", "b", "c", "d", "e"), raw=True)
    report = finetune(
        TASK, model=str(model), dataset=str(pictures), method="lora", output_dir=str(tmp_path / "run"), max_steps=3
    )
    proofs = {proof["name"]: proof for proof in report.proofs}
    assert all(proof["passed"] for proof in report.proofs)
    assert "timm_model.head" in proofs["new weights train"]["detail"]
    assert "the same bits" in proofs["saved = measured"]["detail"]
    assert "probe" in report.baselines
    assert (tmp_path / "run" / "preprocessor_config.json").is_file()
    main(
        [
            "predict",
            str(tmp_path / "run"),
            "--input",
            str(pictures / "test" / "red"),
            "--output",
            str(tmp_path / "out.csv"),
        ]
    )
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert len(rows) == 2 and all(row.split(",")[1] in COLOURS for row in rows)


def test_a_whole_model_is_saved_with_its_classes_for_anyone(pictures: Path, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "test_resnet", ("a", "b", "c", "d"))
    run = tmp_path / "run"
    finetune(
        TASK, model=str(model), dataset=str(pictures), method="full", output_dir=str(run), max_steps=2, verify=False
    )
    names = ["blue", "green", "red"]
    assert json.loads((run / "config.json").read_text())["label_names"] == names
    plain, known = AutoModelForImageClassification.from_pretrained(run).eval(), restore(run)
    assert list(plain.config.id2label.values()) == names
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        kept, read = (one(pixel_values=pixels).logits for one in (known.model.cpu(), plain))
    assert torch.allclose(kept, read, rtol=1e-3, atol=1e-3), "two layouts of the same weights"
    assert AutoImageProcessor.from_pretrained(run)(Image.new("RGB", (50, 40)))["pixel_values"].shape == (1, 3, 32, 32)


def test_rows_of_a_head_are_put_in_the_order_of_the_classes(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "test_resnet", ("red", "green", "blue"))
    weights = load_file(model / "model.safetensors")["timm_model.fc.weight"]
    run = Run(model=str(model), output_dir="unused", method="full")
    method = catalog.load("methods", "full")
    same, notes = load_base(run, task_of("blue", "green", "red"), method)
    assert notes["new_head"] == () and torch.equal(same.timm_model.fc.weight.cpu(), weights[[2, 1, 0]])
    other, notes = load_base(run, task_of("cat", "dog", "owl"), method)
    assert notes["new_head"] == ("timm_model.fc",) and not torch.equal(other.timm_model.fc.weight.cpu(), weights)


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_pictures_are_read_as_timm_reads_them(mode: str, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "test_resnet", ("a", "b"), crop_mode=mode, mean=[0.4, 0.5, 0.6])
    slope = np.add.outer(np.arange(90), np.arange(60))[..., None] * np.array([1.7, 1.0, 0.5])
    picture = Image.fromarray(slope.clip(0, 255).astype(np.uint8))
    ours = processor_of("AutoImageProcessor", str(model))
    assert input_size(ours) == (32, 32)
    expected = AutoImageProcessor.from_pretrained(model)([picture])["pixel_values"]
    assert torch.allclose(ours([picture], return_tensors="pt")["pixel_values"], expected, atol=3 / 255 / 0.4)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ({"crop_mode": "border"}, "32 × 32 pixels in 3 channels, border, bicubic; expected"),
        ({"interpolation": "hamming"}, "center, hamming; expected"),
        ({"interpolation": "box"}, "center, box; expected"),
        ({"input_size": [1, 32, 32], "mean": [0.5], "std": [0.4]}, "32 × 32 pixels in 1 channel,"),
    ],
)
def test_pictures_that_are_read_in_another_way_are_refused(cut: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "test_resnet", ("a", "b"), **cut)
    with pytest.raises(ArtifactError, match=said):
        processor_of("AutoImageProcessor", str(model))


@pytest.mark.parametrize("where", ["hf-hub:user/name", "local-dir:/tmp"])
def test_a_model_that_is_another_one_is_refused(where: str, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "test_resnet", ("a", "b"))
    data = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**data, "architecture": where}))
    with pytest.raises(ArtifactError, match=f"architecture names another model, {where}: refused"):
        load_config(Run(model=str(model), output_dir="unused"))


def test_weights_of_another_file_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safety._say_once.cache_clear()
    model = checkpoint(tmp_path / "model", "test_resnet", ("a", "b"))
    data = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**data, "model_args": {"checkpoint_path": "/etc/other.pth"}}))
    assert load_config(Run(model=str(model), output_dir="unused")).model_args == {}
    assert "model_args.checkpoint_path = /etc/other.pth; ignored" in capsys.readouterr().err


def test_what_to_install_is_said() -> None:
    with pytest.raises(EnvironmentFault, match=r'user/net is made of parts of timm: pip install --upgrade "hf-tuner\[vision\]"'), \
            needs_timm("user/net"):  # fmt: skip
        raise ImportError("\nTimmWrapperModel requires the timm library but it was not found in your environment.")


def test_blocks_come_in_their_order_and_heads_are_no_targets() -> None:
    model = on_meta("resnet50")
    layers = find_layers(model)
    assert [len([n for n in layers if n.startswith(f"timm_model.layer{i}.")]) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]
    assert list(layers) == sorted(layers), "layer1.0, layer1.1 … layer4.2"
    assert head_modules(model) == ("timm_model.fc",)
    twice = on_meta("deit_tiny_distilled_patch16_224")
    assert head_modules(twice) == ("timm_model.head", "timm_model.head_dist")
    assert len(find_targets(twice, head_modules(twice)).selected) == 4 * 12


def test_layers_that_an_adapter_would_not_reach_are_no_targets() -> None:
    """Weights that are handed to a kernel, and convolutions that pad what they get themselves."""
    beit = on_meta("beit_base_patch16_224")
    assert {n.rpartition(".")[2] for n in find_targets(beit, head_modules(beit)).selected} == {"proj", "fc1", "fc2"}
    same = on_meta("tf_mobilenetv3_small_minimal_100")
    chosen = find_targets(same, head_modules(same)).selected
    assert chosen and not [n for n in chosen if type(same.get_submodule(n)).__name__ == "Conv2dSame"]
