"""Image-text-to-text: a model that sees and chats learns to answer questions about pictures, or to talk of them.

accelerate launch recipes/image_text_to_text.py --model HuggingFaceTB/SmolVLM-256M-Instruct --dataset questions.jsonl
hf-tuner lora --task image-text-to-text --model HuggingFaceTB/SmolVLM-256M-Instruct --dataset questions.jsonl
hf-tuner lora --task image-text-to-text --model Qwen/Qwen2.5-VL-3B-Instruct --dataset chats.jsonl --target-modules both
"""

from hf_tuner import (
    ImageTextToText,
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

DEFAULTS = {
    "model": "HuggingFaceTB/SmolVLM-256M-Instruct",
    "dataset": "HuggingFaceM4/A-OKVQA",
    "max_length": 2048,
}


def recipe(run: Run) -> Report:
    """Tune a model that sees and chats; every step returns an ordinary Hugging Face object."""
    data = load_data(run, ImageTextToText)
    processor = load_processor(run, ImageTextToText.from_data(data, run))
    task = load_task(run, ImageTextToText, data, processor)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
