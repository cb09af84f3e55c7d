"""Summarization: a short text for a long one.

accelerate launch recipes/summarization.py --model google-t5/t5-small --dataset EdinburghNLP/xsum
hf-tuner lora --task summarization --model facebook/bart-base --dataset EdinburghNLP/xsum
"""

from hf_tuner import Report, Run, Summarization, examine, fit, launch, load_data, load_model, load_processor, load_task

DEFAULTS = {"model": "google-t5/t5-small", "dataset": "EdinburghNLP/xsum"}


def recipe(run: Run) -> Report:
    """Fine-tune a model that summarises; every step returns an ordinary Hugging Face object."""
    data = load_data(run, Summarization)
    processor = load_processor(run)
    task = load_task(run, Summarization, data, processor)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
