"""Token classification: a tag for each word: names in texts, parts of speech, slots of a request.

accelerate launch recipes/token_classification.py --model google-bert/bert-base-cased --dataset tner/wnut2017
hf-tuner lora --task token-classification --model google-bert/bert-base-cased --dataset tner/wnut2017
hf-tuner lora --task token-classification --model google-bert/bert-base-cased --dataset train.conll
"""

from hf_tuner import Report, Run, TokenClassification, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google-bert/bert-base-cased", "dataset": "tner/wnut2017"}


def recipe(run: Run) -> Report:
    """Fine-tune a tagger; every step returns an ordinary Hugging Face object."""
    data = load_data(run, TokenClassification)
    task = TokenClassification.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
