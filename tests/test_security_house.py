"""One door for what others made: read from the source, so that no second one is opened unnoticed."""

import ast
from collections.abc import Iterator

import pytest
from test_house import CODE, Source, dotted, read

DOORS = {
    "from_pretrained": ("hf_tuner/models/foreign.py", "hf_tuner/methods/_peft.py", "hf_tuner/methods/lora.py"),
    "from_config": ("hf_tuner/models/foreign.py",),
    "load_dataset": ("hf_tuner/data/sources.py",),
    "cached_file": ("hf_tuner/models/foreign.py",),
}
"""Where foreign things are loaded. peft's two places get what models/safety.py has looked at, or what was just saved."""
NEVER = (
    "extractall", "torch.load", "torch.jit.load", "torch.hub.load", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "dill.load", "dill.loads", "joblib.load", "marshal.loads", "cloudpickle.load", "evaluate.load", "eval", "exec", "os.system",
    "os.popen", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive", "runpy.run_path", "input",
)  # fmt: skip


def calls(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Every call and its dotted name; of a method of something else the name alone."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            yield node, name or (node.func.attr if isinstance(node.func, ast.Attribute) else "")


def second_doors(sources: list[Source]) -> Iterator[str]:
    """Calls that load what others made outside the files that look at it first."""
    for source in sources:
        for node, name in calls(source):
            places = DOORS.get(name.rsplit(".", 1)[-1])
            if places is not None and source.path not in places:
                yield source.at(node, f"{name}: foreign things come in through {places[0]} alone")


def dangerous(sources: list[Source]) -> Iterator[str]:
    """Calls that run or unpack what a file says, and arguments that allow it."""
    for source in sources:
        for node, name in calls(source):
            if name in NEVER or name.rsplit(".", 1)[-1] == "extractall":
                yield source.at(node, name)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            for argument, value in {"allow_pickle": "True", "shell": "True", "weights_only": "False"}.items():
                if given.get(argument) == value:
                    yield source.at(node, f"{argument}={value}")


@pytest.mark.fault(65, 66, "S3")
@pytest.mark.parametrize("check", [second_doors, dangerous])
def test_the_package_has_one_door(check) -> None:
    sources = read(*CODE)
    assert len(sources) > 100
    assert list(check(sources)) == []


@pytest.mark.fault("S3")
@pytest.mark.parametrize(
    "text",
    [
        "import transformers\ntransformers.AutoModel.from_pretrained('x')",
        "datasets.load_dataset('x')",
        "auto.from_config(c)",
        "archive.extractall('x')",
        "get().extractall('x')",
        "np.load(p, allow_pickle=True)",
        "subprocess.run('x', shell=True)",
        "input('run it? ')",
        "torch.load(p)",
    ],
)
def test_a_second_door_is_found(text: str) -> None:
    sources = [Source("hf_tuner/report/a.py", text)]
    assert [*second_doors(sources), *dangerous(sources)]


@pytest.mark.fault("S3")
def test_every_door_is_in_use() -> None:
    """A door that nothing goes through any more is closed."""
    seen = {(name.rsplit(".", 1)[-1], source.path) for source in read(*CODE) for _, name in calls(source)}
    assert {(name, path) for name, paths in DOORS.items() for path in paths} <= seen
