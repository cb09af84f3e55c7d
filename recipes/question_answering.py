"""Question answering: the piece of a text that answers a question, or that there is none.

accelerate launch recipes/question_answering.py --model google-bert/bert-base-uncased --dataset rajpurkar/squad
hf-tuner lora --task question-answering --model google-bert/bert-base-uncased --dataset rajpurkar/squad
hf-tuner lora --task question-answering --model google-bert/bert-base-uncased --dataset rajpurkar/squad_v2
"""

from hf_tuner import QuestionAnswering, Report, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {"model": "google-bert/bert-base-uncased", "dataset": "rajpurkar/squad"}


def recipe(run: Run) -> Report:
    """Fine-tune a reader that answers from texts; every step returns an ordinary Hugging Face object."""
    data = load_data(run, QuestionAnswering)
    task = QuestionAnswering.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
