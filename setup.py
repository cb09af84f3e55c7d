"""Map the top-level folders into the package: `recipes/` is hf_tuner.recipes, `accelerate_configs/` likewise.

Everything else about the distribution is in pyproject.toml.
"""

from setuptools import find_packages, setup

MAPPED = {"hf_tuner.recipes": "recipes", "hf_tuner.accelerate_configs": "accelerate_configs"}

setup(
    packages=[*find_packages(".", include=["hf_tuner", "hf_tuner.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "hf_tuner": ["py.typed", "demo/customer_messages/*", "report/*.j2"],
        "hf_tuner.recipes": ["*.yaml"],
        "hf_tuner.accelerate_configs": ["*.yaml"],
    },
    include_package_data=False,
)
