"""Panoptic segmentation: every pixel to one segment, of a thing that can be counted or of stuff such as sky.

accelerate launch recipes/panoptic_segmentation.py --model facebook/mask2former-swin-tiny-coco-panoptic --dataset street/
hf-tuner full --task panoptic-segmentation --model tue-mps/coco_panoptic_eomt_base_640 --dataset street/
hf-tuner lora --task panoptic-segmentation --model facebook/mask2former-swin-tiny-coco-panoptic --dataset street/ --things car
"""

from hf_tuner import (
    PanopticSegmentation,
    Report,
    Run,
    examine,
    fit,
    launch,
    load_data,
    load_model,
    load_processor,
    load_task,
)

DEFAULTS = {"model": "facebook/mask2former-swin-tiny-coco-panoptic"}


def recipe(run: Run) -> Report:
    """Fine-tune a segmenter; every step returns an ordinary Hugging Face object."""
    data = load_data(run, PanopticSegmentation)
    task = load_task(run, PanopticSegmentation, data)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
