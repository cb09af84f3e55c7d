"""Translation: a text in another language.

accelerate launch recipes/translation.py --model Helsinki-NLP/opus-mt-en-de --dataset bentrevett/multi30k
hf-tuner lora --task translation --model google-t5/t5-small --dataset pairs.csv --source-language en --target-language de
"""

from hf_tuner import Report, Run, Translation, examine, fit, launch, load_data, load_model, load_processor, load_task

DEFAULTS = {"model": "Helsinki-NLP/opus-mt-en-de", "dataset": "bentrevett/multi30k"}


def recipe(run: Run) -> Report:
    """Fine-tune a model that translates; every step returns an ordinary Hugging Face object."""
    data = load_data(run, Translation)
    processor = load_processor(run)
    task = load_task(run, Translation, data, processor)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
