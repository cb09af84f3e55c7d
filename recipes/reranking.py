"""Reranking: a cross-encoder that reads a query and a document together and says how relevant it is.

accelerate launch recipes/reranking.py --model microsoft/MiniLM-L12-H384-uncased --dataset sentence-transformers/quora-duplicates:pair-class
hf-tuner lora --task reranking --model microsoft/MiniLM-L12-H384-uncased --dataset sentence-transformers/quora-duplicates:pair-class
"""

from hf_tuner import Report, Reranking, Run, examine, fit, launch, load_data, load_model, load_processor

DEFAULTS = {
    "model": "microsoft/MiniLM-L12-H384-uncased",
    "dataset": "sentence-transformers/quora-duplicates",
    "dataset_config": "pair-class",
}


def recipe(run: Run) -> Report:
    """Fine-tune a reranker; every step returns an ordinary Hugging Face object."""
    data = load_data(run, Reranking)
    task = Reranking.from_data(data, run)
    processor = load_processor(run)
    data = examine(run, task, processor, data)
    model = load_model(run, task)
    return fit(run, task, model, processor, data)


if __name__ == "__main__":
    launch(recipe)
