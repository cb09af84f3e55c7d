"""Image classification: one label, several labels or a number for each picture.

accelerate launch recipes/image_classification.py --model google/vit-base-patch16-224-in21k --dataset ethz/food101
hf-tuner lora --task image-classification --model google/vit-base-patch16-224-in21k --dataset ethz/food101
hf-tuner full --task image-classification --model facebook/convnext-tiny-224 --dataset photos/
"""

from hf_tuner import ImageClassification, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google/vit-base-patch16-224-in21k", "dataset": "ethz/food101"}


def recipe(run: Run) -> Report:
    """Fine-tune an image classifier; every step returns an ordinary Hugging Face object."""
    data = load_data(run, ImageClassification)
    task = ImageClassification.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
