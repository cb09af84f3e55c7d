"""Ready-made configurations for `accelerate launch --config_file` and `--accelerate-config`."""
