"""Instance segmentation: a mask with a label for every thing on a picture.

accelerate launch recipes/instance_segmentation.py --model facebook/mask2former-swin-tiny-coco-instance --dataset photos/
hf-tuner full --task instance-segmentation --model tue-mps/coco_instance_eomt_large_640 --dataset qubvel-hf/ade20k-mini
hf-tuner lora --task instance-segmentation --model facebook/mask2former-swin-tiny-coco-instance --dataset coco/ --image-size 384
"""

from hf_tuner import (
    InstanceSegmentation,
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

DEFAULTS = {"model": "facebook/mask2former-swin-tiny-coco-instance", "dataset": "qubvel-hf/ade20k-mini"}


def recipe(run: Run) -> Report:
    """Fine-tune a segmenter; every step returns an ordinary Hugging Face object."""
    data = load_data(run, InstanceSegmentation)
    task = load_task(run, InstanceSegmentation, data)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
