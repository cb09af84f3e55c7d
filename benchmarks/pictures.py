"""Images per second beside the plain Trainer, set up as transformers' own vision examples are, and where the floor lies.

    python benchmarks/pictures.py --task image-classification --model MOBILENET --dataset PHOTOS --rows 128
    python benchmarks/pictures.py --task object-detection --model DETECTOR --dataset BCCD --rows 48 --size 608

Any flag of a run may follow. All sides train the same model in full, with the same augmentation, rows, batch size and
data workers, for one pass:
  example      the plain Trainer with the transforms of run_image_classification.py (RandomResizedCrop, flip, ToTensor,
               Normalize), or of run_object_detection.py (flip, the image processor with padding to a square of --size,
               which RT-DETR and its kin need as a multiple of 32);
               float32, the Trainer's default
  hf-tuner     what `hf-tuner full` runs
  decode only  every picture is decoded, nothing else
  batches only the batches of hf-tuner are made, and thrown away
  model only   forward, backward and update of hf-tuner's model on one batch that is there already
The sides take turns for `--rounds` rounds; the fastest time of each counts. Ratios are what is reported.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from tasks import Made, ours, prepared, timed
from torch.utils.data import Dataset

from hf_tuner import catalog, flags
from hf_tuner.config import Run
from hf_tuner.console import table
from hf_tuner.launching import quiet, read_recipe
from hf_tuner.models.load import load_model
from hf_tuner.tasks._vision import decoded, input_size
from hf_tuner.training.batching import Rows
from hf_tuner.training.objective import objective

BATCH = 32


class Example(Dataset):
    """Rows as an example script's `with_transform` gives them."""

    def __init__(self, rows: Any, transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.transform(self.rows[index])


def main() -> None:
    """Run every side and print seconds, images per second, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=600)
    parser.add_argument("--task", required=True, choices=sorted(TRANSFORMS))
    seen, words = parser.parse_known_args()
    quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    _, defaults = read_recipe(catalog.path("recipes", seen.task))
    same = {"object-detection": ["--augment", "flip"]}.get(seen.task, [])
    fixed = ["--task", seen.task, "--method", "full", "--way-in", "random", "--output-dir", tempfile.mkdtemp()]
    run = flags.parse([*fixed, *same, *words], defaults)
    made = prepared(run, seen.rows)
    if seen.task == "object-detection":
        made.processor.size = {"max_height": seen.size, "max_width": seen.size}
    rows = len(made.ready)
    print(f"\n{seen.task}: {rows} images, batches of {batch_size(run)}, {torch.get_num_threads()} threads")
    best: dict[str, float] = {}
    for _ in range(seen.rounds):
        for name, side in sides(seen.size).items():
            seconds = side(run, made)
            best[name] = min(best.get(name, seconds), seconds)
            print(f"  {name:<12} {seconds:6.1f} s", flush=True)
    lines = [(n, f"{s:.1f}", f"{rows / s:.1f}", f"{s / best['hf-tuner']:.2f}") for n, s in best.items()]
    print(table(("side", "seconds", "images/s", "hf-tuner is … times as fast"), lines))


def sides(size: int) -> dict[str, Callable[[Run, Made], float]]:
    """The sides by name."""
    return {
        "example": lambda run, made: example(run, made, size),
        "hf-tuner": ours,
        "decode only": lambda run, made: timed(lambda: [decoded(row["image"]) for row in made.ready]),
        "batches only": lambda run, made: timed(
            lambda: [made.task.collate(made.processor)(b) for b in batches(run, made)]
        ),
        "model only": model_only,
    }


def example(run: Run, made: Made, size: int) -> float:
    """Seconds of the Trainer alone, with an example script's transforms."""
    task, processor, ready = made.task, made.processor, made.ready
    transform, collate = TRANSFORMS[run.task](task, processor, size)
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, save_strategy="no", report_to="none", disable_tqdm=True,
        per_device_train_batch_size=batch_size(run), logging_strategy="no", remove_unused_columns=False,
        dataloader_num_workers=int(run.training.get("dataloader_num_workers") or 0), dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available())  # fmt: skip
    model = load_model(run, task).to(memory_format=torch.contiguous_format)
    trainer = transformers.Trainer(model, arguments, train_dataset=Example(ready, transform), data_collator=collate)
    return timed(trainer.train)


def classification(task: Any, processor: Any, size: int) -> tuple[Callable, Callable]:
    """Transform and collator of run_image_classification.py, with the least area of a crop that hf-tuner takes."""
    from torchvision import transforms

    from hf_tuner.augment.crop import SMALLEST

    change = transforms.Compose([
        transforms.RandomResizedCrop(input_size(processor), scale=(SMALLEST, 1.0)), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize(processor.image_mean, processor.image_std),
    ])  # fmt: skip

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]),
                "labels": torch.tensor([row["labels"] for row in rows])}  # fmt: skip

    return lambda row: {"pixel_values": change(decoded(row["image"])), "labels": row["labels"]}, collate


def detection(task: Any, processor: Any, size: int) -> tuple[Callable, Callable]:
    """Transform and collator of run_object_detection.py."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    change = v2.Compose([v2.RandomHorizontalFlip(), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)])
    square = {"do_pad": True, "pad_size": {"height": size, "width": size}, "return_tensors": "pt"}

    def transform(row: dict[str, Any]) -> dict[str, Any]:
        picture = decoded(row["image"])
        boxes = tv_tensors.BoundingBoxes(row["boxes"], format="XYXY", canvas_size=(picture.height, picture.width))
        new = change({"image": picture, "boxes": boxes, "labels": torch.tensor(row["labels"])})
        corners = [[x, y, right - x, bottom - y] for x, y, right, bottom in new["boxes"].tolist()]
        said = [{"image_id": 0, "category_id": kind, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for kind, box in zip(new["labels"].tolist(), corners, strict=True)]  # fmt: skip
        result = processor(images=new["image"], annotations={"image_id": 0, "annotations": said}, **square)
        return {name: value[0] for name, value in result.items()}

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        stacked = {k: torch.stack([row[k] for row in rows]) for k in ("pixel_values", "pixel_mask") if k in rows[0]}
        return {**stacked, "labels": [row["labels"] for row in rows]}

    return transform, collate


TRANSFORMS: dict[str, Callable[[Any, Any, int], tuple[Callable, Callable]]] = {
    "image-classification": classification,
    "object-detection": detection,
}


def model_only(run: Run, made: Made) -> float:
    """Seconds that as many batches as there are take in the model, if nothing has to be made for them."""
    task, processor = made.task, made.processor
    model, loss = load_model(run, task).train(), objective(run, task, None)
    given = batches(run, made)
    batch = task.collate(processor)(given[0])
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)

    def updates() -> None:
        for _ in given:
            loss(model, dict(batch)).backward()
            optimizer.step()
            optimizer.zero_grad()

    return timed(updates)


def batches(run: Run, made: Made) -> list[list[dict[str, Any]]]:
    """The training rows of one pass, in batches."""
    rows = Rows(made.ready)
    count, size = len(rows), batch_size(run)
    return [rows.__getitems__(list(range(start, min(start + size, count)))) for start in range(0, count, size)]


def batch_size(run: Run) -> int:
    """Images of one batch."""
    return int(run.training.get("per_device_train_batch_size") or BATCH)


if __name__ == "__main__":
    main()
