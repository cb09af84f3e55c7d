"""Object detection: boxes with labels on pictures.

accelerate launch recipes/object_detection.py --model facebook/detr-resnet-50 --dataset rishitdagli/cppe-5
hf-tuner full --task object-detection --model PekingU/rtdetr_v2_r18vd --dataset rishitdagli/cppe-5
hf-tuner lora --task object-detection --model hustvl/yolos-tiny --dataset photos/
"""

from hf_tuner import ObjectDetection, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "facebook/detr-resnet-50", "dataset": "rishitdagli/cppe-5"}


def recipe(run: Run) -> Report:
    """Fine-tune a detector; every step returns an ordinary Hugging Face object."""
    data = load_data(run, ObjectDetection)
    task = ObjectDetection.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
