"""Contrastive image and text: a model of two towers (CLIP, SigLIP) that finds captions for pictures and pictures for captions.

accelerate launch recipes/contrastive_image_text.py --model openai/clip-vit-base-patch32 --dataset nlphuji/flickr30k
hf-tuner lora --task contrastive-image-text --model openai/clip-vit-base-patch32 --dataset nlphuji/flickr30k
"""

from hf_tuner import (
    ContrastiveImageText,
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

DEFAULTS = {"model": "openai/clip-vit-base-patch32", "dataset": "nlphuji/flickr30k"}


def recipe(run: Run) -> Report:
    """Fine-tune a model of two towers; every step returns an ordinary Hugging Face object."""
    data = load_data(run, ContrastiveImageText)
    task = load_task(run, ContrastiveImageText, data)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
