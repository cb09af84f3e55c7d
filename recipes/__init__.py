"""The recipes: one file per task, each a script, a module and what `hf-tuner METHOD --task` runs."""
