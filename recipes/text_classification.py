"""Text classification: one label, several labels or a number for each text or pair of texts.

accelerate launch recipes/text_classification.py --model bert-base-uncased --dataset stanfordnlp/imdb
hf-tuner lora --task text-classification --model bert-base-uncased --dataset stanfordnlp/imdb
hf-tuner lora --model demo --dataset demo        # embedded model and data, no Hub needed
"""

from hf_tuner import Report, Run, TextClassification, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google-bert/bert-base-uncased", "dataset": "stanfordnlp/imdb"}


def recipe(run: Run) -> Report:
    """Fine-tune a text classifier; every step returns an ordinary Hugging Face object."""
    data = load_data(run, TextClassification)
    task = TextClassification.from_data(data, run)
    processor = load_processor(run, task)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
