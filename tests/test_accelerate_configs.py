"""Every bundled accelerate configuration is one that the installed accelerate understands, to the last key."""

import os
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

FOLDER = Path(__file__).parent.parent / "accelerate_configs"
FILES = sorted(FOLDER.glob("*.yaml"))
SECTIONS = ("fsdp_config", "deepspeed_config")

each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def launch_args(path: Path, *words: str) -> Namespace:
    """What `accelerate launch --config_file PATH script.py` would work with."""
    parser = launch_command_parser()
    args, _, _ = _validate_launch_command(parser.parse_args([*words, "--config_file", str(path), "script.py"]))
    return args


def environment(args: Namespace) -> dict[str, str]:
    """The variables that the launched processes would get."""
    args.main_process_port = args.main_process_port or 0
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    if args.multi_gpu or args.use_fsdp:
        return prepare_multi_gpu_env(args)
    return prepare_simple_launcher_cmd_env(args)[1]


def test_the_folder_holds_the_usual_set_ups() -> None:
    """The tests below look at something: one file for each kind of distribution."""
    kinds = {str(yaml.safe_load(p.read_text(encoding="utf-8"))["distributed_type"]) for p in FILES}
    assert kinds == {"NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED"}


@each_file
def test_begins_with_when_to_use_it(path: Path) -> None:
    """The first line says in a comment what the set-up is and when it is the right one."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert ":" in first


@each_file
def test_accelerate_loads_it(path: Path) -> None:
    """accelerate's own loader takes the file, and the kind of distribution comes out as it was written."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded = load_config_from_file(str(path))
    assert isinstance(loaded, ClusterConfig)
    assert loaded.distributed_type.value == written["distributed_type"]
    assert loaded.num_processes == written["num_processes"] >= 1


@each_file
def test_every_key_is_known(path: Path) -> None:
    """No key is one that accelerate would carry along and ignore."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(written) <= set(ClusterConfig.__dataclass_fields__)
    flags = {action.dest for action in launch_command_parser()._actions}
    for section in SECTIONS:
        assert set(written.get(section, {})) <= flags


@each_file
def test_launch_takes_the_values(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher merges the file without an error and hands its mixed precision to the processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Two test workers may ask for the same port at once; the launcher would look for a free one.
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    args = launch_args(path)
    assert args.num_processes == written["num_processes"]
    assert environment(args)["ACCELERATE_MIXED_PRECISION"] == written["mixed_precision"]


def test_num_processes_on_the_command_line_wins() -> None:
    """--num_processes beats the file, as docs/distributed.md says."""
    assert launch_args(FOLDER / "ddp.yaml", "--num_processes", "4").num_processes == 4


def test_fsdp2_builds_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes' environment makes an FSDP2 plugin that shards, saves whole, and warns of nothing obsolete."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in environment(launch_args(FOLDER / "fsdp2.yaml")).items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_stage_reaches_the_processes(stage: int) -> None:
    """zero2 and zero3 start DeepSpeed with the stage of their name, and zero3 gathers its weights when saving."""
    found = environment(launch_args(FOLDER / f"zero{stage}.yaml"))
    assert found["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    if stage == 3:
        assert found["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
