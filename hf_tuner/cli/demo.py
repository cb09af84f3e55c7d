"""demo: the whole road on the embedded model and data: train, prove, predict. No Hub needed."""

from collections.abc import Sequence

from hf_tuner import catalog, flags
from hf_tuner.console import say, table

EXAMPLES = (
    "hi, the tracking page has not moved since tuesday, where is my parcel?",
    "You charged my card twice but the order says unpaid.",
    "Can I still send the boots back if I wore them once indoors?",
)


def main(words: Sequence[str]) -> None:
    """Run `hf-tuner lora --model demo --dataset demo` and predict three messages with what was saved."""
    from hf_tuner.launching import default_folder, exit_codes, launch_file, read_recipe

    if "--help" in words or "-h" in words:
        say("hf-tuner demo [any flag of hf-tuner lora]\n\n" + str(__doc__))
        return
    path = catalog.path("recipes", "text-classification")
    given = ["--method", "lora", "--model", "demo", "--dataset", "demo", *words]
    with exit_codes():
        run = flags.parse(given, read_recipe(path)[1])
        folder = run.output_dir or default_folder(run)
    if (
        launch_file(
            path, [*given, "--output-dir", folder], lambda: catalog.load("recipes", "text-classification").recipe
        )
        is None
    ):
        return
    from hf_tuner.evaluation.predict import predict

    answers = predict(folder, list(EXAMPLES))
    rows = [(text, a["prediction"], f"{a['score']:.2f}") for text, a in zip(EXAMPLES, answers, strict=True)]
    say("\n" + table(("message", "prediction", "score"), rows))
    say(f"\n  look at   {folder}/report.html")
    say(f"  predict   hf-tuner predict {folder} --input texts.csv --output out.csv")
    say("  your own  hf-tuner lora --model MODEL --dataset train.csv --eval-dataset test.csv")
