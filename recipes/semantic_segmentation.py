"""Semantic segmentation: a class for every pixel of a picture.

accelerate launch recipes/semantic_segmentation.py --model openmmlab/upernet-convnext-tiny --dataset street/
hf-tuner lora --task semantic-segmentation --model openmmlab/upernet-convnext-tiny --dataset street/
hf-tuner full --task semantic-segmentation --model google/deeplabv3_mobilenet_v2_1.0_513 --dataset street/
"""

from hf_tuner import Report, Run, SemanticSegmentation, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "openmmlab/upernet-convnext-tiny", "dataset": "segments/sidewalk-semantic"}


def recipe(run: Run) -> Report:
    """Fine-tune a segmenter; every step returns an ordinary Hugging Face object."""
    data = load_data(run, SemanticSegmentation)
    task = SemanticSegmentation.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
