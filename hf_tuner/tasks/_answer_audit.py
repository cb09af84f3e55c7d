"""What a look at questions and answers shows: how many have none, which answers stood elsewhere than said."""

from collections.abc import Mapping
from typing import Any

from hf_tuner.tasks._task import Findings


def answer_findings(data: Mapping[str, Any]) -> Findings:
    """Findings of canonical rows with `answers` and `moved`."""
    found = Findings()
    told, facts = [], {}
    for split, rows in data.items():
        answers = [one["text"] for one in rows["answers"][:]] if "answers" in rows.column_names else []
        none, moved = sum(not texts for texts in answers), sum(rows["moved"][:]) if "moved" in rows.column_names else 0
        facts[split] = {"questions": len(answers), "impossible": none, "moved": moved,
                        "contexts": len(set(rows["context"][:]))}  # fmt: skip
        told.append(f"{split} {len(answers):,}" + (f" ({none:,} without an answer)" if none else ""))
        if moved:
            found.warnings.append(
                f"{split}: {moved:,} answers stand elsewhere in their context than said, once; corrected"
            )
    found.lines["questions"] = ", ".join(told)
    found.facts["questions"] = facts
    if facts["train"]["impossible"] == facts["train"]["questions"]:
        found.errors.append(
            ("train", 0, "no question of train has an answer: nothing to learn; is it the right column?")
        )
    if not facts["train"]["impossible"]:
        found.warnings += [f"{split}: {facts[split]['impossible']:,} questions have no answer, but none in train: the model "
                           "always answers" for split in facts if facts[split]["impossible"]]  # fmt: skip
    elif "validation" not in data:
        found.warnings.append("no validation rows to choose on when to answer nothing: the threshold stays 0; "
                              "--eval-split 10% holds some out")  # fmt: skip
    return found
