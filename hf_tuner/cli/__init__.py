"""The verbs of `hf-tuner`, one small file each; nothing heavy at import."""
