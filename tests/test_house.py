"""The house rules, read from the source with `ast`: which way imports go, sizes, docstrings, no work at import.

Every check is a function from source files to faults ("file:line what is wrong"). One test runs it over the package;
`test_the_checks_can_fail` shows each of them a file that breaks its rule.
"""

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("hf_tuner", "recipes")
ALL = (*CODE, "accelerate_configs", "tests", "benchmarks", ".ci")

LINES_PER_FILE, LINES_PER_FUNCTION, PARAMETERS = 400, 60, 7

PLUGS = ("tasks", "methods", "edits", "select", "augment", "losses", "optimizers", "metrics")
ROOMS = ("data", "models", "training", "evaluation", "hub", "report")
LEVELS = {**dict.fromkeys(PLUGS, 1), **dict.fromkeys(ROOMS, 2), "recipes": 3, "launching": 4, "cli": 5}
"""Imports go down, never up; what is not named here (config, errors, catalog, console, …) is the ground floor."""
SCRIPT_DOOR = ("recipes", "launching")
"""The last line of a recipe, `launch(recipe)`, is the one import that goes up."""
SCORES = ("tasks", "metrics")
"""A task says how its answers are scored; no other plug knows another kind."""

LIGHT = (
    "cli", "tasks", "methods", "losses", "optimizers", "config", "flags", "catalog", "console", "errors", "launching",
    "folder", "versions", "processes", "faults", "__init__",
)  # fmt: skip
"""Imported while flags are parsed: `hf-tuner --help` answers in under 0.2 s."""
HEAVY = (
    "torch", "transformers", "peft", "datasets", "numpy", "evaluate", "accelerate", "sklearn", "matplotlib", "scipy",
    "pandas", "pyarrow", "safetensors", "huggingface_hub", "bitsandbytes", "torchvision", "PIL",
)  # fmt: skip

UNSAFE_CALLS = ("torch.load", "pickle.load", "pickle.loads", "evaluate.load", "eval", "exec")
CONSTANT_CALLS = (
    "frozenset", "set", "tuple", "dict", "list", "sorted", "range", "str", "float", "int", "Path", "re.compile",
    "TypeVar", "NewType", "ParamSpec", "namedtuple", "MappingProxyType", "dict.fromkeys", "datasets.Value",
    "datasets.Sequence",
)  # fmt: skip
"""Calls that only make a constant, as the file's own dataclasses do, and so may stand at the top level of a module."""


@dataclass(frozen=True)
class Source:
    """One file: its path from the project's root, its text and its tree."""

    path: str
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """Dotted name as it is imported; recipes/ is hf_tuner.recipes."""
        parts = Path(self.path).with_suffix("").parts
        parts = parts if parts[0] == "hf_tuner" else ("hf_tuner", *parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)

    @property
    def room(self) -> str:
        """Folder under hf_tuner, or the module's own name when it lies beside the folders."""
        return self.module.split(".")[1]

    def at(self, node: ast.AST, text: str) -> str:
        """A fault: where and what."""
        return f"{self.path}:{getattr(node, 'lineno', 1)} {text}"


Check = Callable[[list[Source]], Iterable[str]]


@functools.cache
def read(*folders: str) -> list[Source]:
    """Every Python file under the folders."""
    files = sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))
    return [Source(p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8")) for p in files]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones as well."""
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def public_names() -> dict[str, str]:
    """Name → module of what `from hf_tuner import NAME` loads lazily."""
    tree = ast.parse((ROOT / "hf_tuner" / "__init__.py").read_text(encoding="utf-8"))
    homes = [n.value for n in tree.body if isinstance(n, ast.Assign) and dotted(n.targets[0]) == "_HOME"]
    return dict(ast.literal_eval(homes[0]))


def imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement brings in; lazy names of hf_tuner under their home."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.module == "hf_tuner":
        return [f"hf_tuner.{public_names().get(alias.name, alias.name)}" for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def ours(node: ast.AST) -> list[list[str]]:
    """The parts after hf_tuner of what an import statement brings in from the package."""
    names = [name.split(".") for name in imported(node)]
    return [parts[1:] for parts in names if parts[0] == "hf_tuner" and len(parts) > 1]


def is_guard(node: ast.stmt) -> bool:
    """`if TYPE_CHECKING:` or `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in ("TYPE_CHECKING", "__name__"))


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, those inside classes, `try` and plain `if` as well."""
    for node in body:
        if is_guard(node):
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
            yield from at_import(inner)


def upward_imports(sources: list[Source]) -> Iterator[str]:
    """cli → launching → recipes → rooms → plugs → ground floor; plugs never import each other."""
    for source in sources:
        level = LEVELS.get(source.room, 0)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield source.at(node, "relative import; write the full name")
            for room, *rest in ours(node):
                if LEVELS.get(room, 0) > level and (source.room, room) != SCRIPT_DOOR:
                    yield source.at(node, f"{source.room} must not import {room}: imports go one way")
                elif room in PLUGS and source.room in PLUGS and room != source.room and (source.room, room) != SCORES:
                    yield source.at(node, f"{source.room} must not import {room}: plugs do not know each other")
                elif room in PLUGS and room == source.room and rest and not rest[0].startswith("_"):
                    yield source.at(node, f"imports its neighbour {rest[0]}; share through a _file of the folder")


def import_cycles(sources: list[Source]) -> Iterator[str]:
    """No module imports itself through others at its top level."""
    modules = {s.module: s for s in sources}
    needs = {name: sorted(_needed(source, set(modules))) for name, source in modules.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            yield f"{modules[name].path}:1 import cycle {' → '.join((*path[path.index(name) :], name))}"
        elif name not in done:
            for needed in needs[name]:
                yield from visit(needed, (*path, name))
            done.add(name)

    for name in needs:
        yield from visit(name, ())


def _needed(source: Source, known: set[str]) -> Iterator[str]:
    for node in at_import(source.tree.body):
        for parts in ours(node):
            whole = ["hf_tuner", *parts]
            names = (".".join(whole[:size]) for size in range(len(whole), 1, -1))
            found = next((name for name in names if name in known), None)
            if found and found != source.module:
                yield found


def heavy_imports(sources: list[Source]) -> Iterator[str]:
    """Files read while flags are parsed import nothing heavy at their top level, nor a room that does."""
    for source in (s for s in sources if s.room in LIGHT):
        for node in at_import(source.tree.body):
            heavy = [n for n in imported(node) if n.split(".")[0] in HEAVY]
            heavy += [parts[0] for parts in ours(node) if parts[0] in LEVELS and parts[0] not in LIGHT]
            if heavy:
                yield source.at(node, f"imports {heavy[0]} at top level; do it inside the function that needs it")


def long_files(sources: list[Source]) -> Iterator[str]:
    """No file over 400 lines, and none called utils.py."""
    for source in sources:
        if (lines := len(source.text.splitlines())) > LINES_PER_FILE:
            yield f"{source.path}:{lines} {lines} lines; at most {LINES_PER_FILE}"
        if Path(source.path).name == "utils.py":
            yield f"{source.path}:1 utils.py says nothing about what is in it"


def long_functions(sources: list[Source]) -> Iterator[str]:
    """No function over 60 lines, none with more than 7 parameters (self and cls do not count)."""
    for source in sources:
        for function in functions(source.tree):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > LINES_PER_FUNCTION:
                yield source.at(function, f"{function.name} has {lines} lines; at most {LINES_PER_FUNCTION}")
            a = function.args
            named = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if p]
            count = len([n for n in named if n not in ("self", "cls")])
            if count > PARAMETERS:
                yield source.at(function, f"{function.name} has {count} parameters; at most {PARAMETERS}")


def missing_docstrings(sources: list[Source]) -> Iterator[str]:
    """Every module, public class, public function and public method says what it is; a test's name may do."""
    for source in sources:
        if not ast.get_docstring(source.tree):
            yield f"{source.path}:1 no module docstring"
        for node in [] if source.path.startswith("tests/") else _public(source.tree):
            if not ast.get_docstring(node):
                yield source.at(node, f"{node.name} has no docstring")


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in parent.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def silent_options(sources: list[Source]) -> Iterator[str]:
    """Every setting of `Run` and of each `Config` carries its help."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and dotted(node.func) == "option" and not _help(node):
                yield source.at(node, "option without a help text")
            if isinstance(node, ast.ClassDef) and node.name in ("Run", "Config"):
                yield from (source.at(f, f"{ast.unparse(f)} is not made by option()") for f in _plain_fields(node))


def _help(call: ast.Call) -> bool:
    texts = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "text")]
    return any(isinstance(t, ast.JoinedStr | ast.Name) or (isinstance(t, ast.Constant) and t.value) for t in texts)


def _plain_fields(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
            made_by = dotted(field.value.func) if isinstance(field.value, ast.Call) else ""
            internal = made_by == "field" and "'internal': True" in ast.unparse(field.value or field)
            if not internal and made_by.split(".")[-1].removeprefix("target_") != "option":
                yield field


def work_at_import(sources: list[Source]) -> Iterator[str]:
    """A module's top level holds imports, definitions, constants and guards, and calls nothing."""
    quiet = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for source in sources:
        constants = {*CONSTANT_CALLS, *_dataclasses(source.tree)}
        for node in source.tree.body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, quiet) or text or is_guard(node):
                continue
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                yield source.at(node, f"{type(node).__name__} at top level: no work at import")
            elif calls := [c for c in _calls_made(node) if c not in constants]:
                yield source.at(node, f"{calls[0]}(…) is called at import")


def _dataclasses(tree: ast.Module) -> set[str]:
    classes = (n for n in tree.body if isinstance(n, ast.ClassDef))
    return {c.name for c in classes if any("dataclass" in ast.unparse(d) for d in c.decorator_list)}


def _calls_made(node: ast.AST) -> Iterator[str]:
    """Names of what an expression calls when it is evaluated; the body of a lambda is not."""
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.Call):
        yield dotted(node.func) or ast.unparse(node.func)
    for child in ast.iter_child_nodes(node):
        yield from _calls_made(child)


def global_statements(sources: list[Source]) -> Iterator[str]:
    """State has an owner: no `global`."""
    yield from (s.at(n, "global") for s in sources for n in ast.walk(s.tree) if isinstance(n, ast.Global))


def unsafe_calls(sources: list[Source]) -> Iterator[str]:
    """Nothing that runs code out of a file: remote code, pickles, free YAML, evaluate.load, eval."""
    for source in sources:
        full = dict(_aliases(source.tree))
        safe = {c.name for c in ast.walk(source.tree) if isinstance(c, ast.ClassDef) and _is_safe_loader(c)}
        for call in (n for n in ast.walk(source.tree) if isinstance(n, ast.Call)):
            head, _, rest = dotted(call.func).partition(".")
            name = f"{full.get(head, head)}{'.' if rest else ''}{rest}"
            given = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if name in UNSAFE_CALLS:
                yield source.at(call, f"{name} runs code out of a file")
            if given.get("trust_remote_code") == "True":
                yield source.at(call, "trust_remote_code=True; only a user may decide that")
            if name == "yaml.load" and given.get("Loader") not in {*safe, "yaml.SafeLoader"}:
                yield source.at(call, "yaml.load without a SafeLoader")


def _aliases(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.asname, a.name) for a in node.names if a.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _is_safe_loader(node: ast.ClassDef) -> bool:
    return any(dotted(base).split(".")[-1] in ("SafeLoader", "CSafeLoader") for base in node.bases)


CHECKS: list[tuple[Check, tuple[str, ...], int]] = [
    (upward_imports, CODE, 50),
    (import_cycles, CODE, 50),
    (heavy_imports, CODE, 50),
    (long_files, ALL, 60),
    (long_functions, ALL, 60),
    (missing_docstrings, ALL, 60),
    (silent_options, CODE, 50),
    (work_at_import, CODE, 50),
    (global_statements, ALL, 60),
    (unsafe_calls, CODE, 50),
]


@pytest.mark.fault("S3")
@pytest.mark.parametrize("check, folders, at_least", CHECKS, ids=[check.__name__ for check, *_ in CHECKS])
def test_house_rule(check: Check, folders: tuple[str, ...], at_least: int) -> None:
    """The whole project keeps the rule, and enough of the project was looked at to say so."""
    sources = read(*folders)
    assert len(sources) >= at_least, f"looked at {len(sources)} files only"
    faults = "\n".join(check(sources))
    assert not faults, f"\n{faults}"


def test_every_folder_has_its_place() -> None:
    """A new folder in the package is given a level, or the direction of its imports would not be looked at."""
    found = {p.parent.name for p in (ROOT / "hf_tuner").glob("*/__init__.py")}
    assert found >= {"cli", "tasks", "methods"}
    assert found <= {*LEVELS}, f"no level for {sorted(found - {*LEVELS})}"


BROKEN = [
    (upward_imports, "hf_tuner/tasks/a.py", "from hf_tuner.models.load import load_model"),
    (upward_imports, "hf_tuner/tasks/a.py", "def f():\n    from hf_tuner.methods import lora"),
    (upward_imports, "hf_tuner/methods/a.py", "from hf_tuner.methods.lora import adapt"),
    (upward_imports, "hf_tuner/models/a.py", "from . import load"),
    (upward_imports, "hf_tuner/data/a.py", "from hf_tuner import finetune"),
    (import_cycles, "hf_tuner/data/a.py", "from hf_tuner.data.b import f"),
    (heavy_imports, "hf_tuner/methods/a.py", "import torch.nn as nn"),
    (heavy_imports, "hf_tuner/cli/a.py", "from hf_tuner.training.fit import fit"),
    (heavy_imports, "hf_tuner/config.py", "try:\n    from numpy import array\nexcept ImportError:\n    pass"),
    (long_files, "hf_tuner/a.py", "x = 1\n" * 401),
    (long_files, "hf_tuner/data/utils.py", ""),
    (long_functions, "hf_tuner/a.py", "def f():\n" + "    x = 1\n" * 60),
    (long_functions, "hf_tuner/a.py", "class A:\n    def f(self, a, b, c, d, e, *f, g, **h):\n        pass"),
    (missing_docstrings, "hf_tuner/a.py", "x = 1"),
    (missing_docstrings, "hf_tuner/a.py", '"""A."""\nclass A:\n    """A."""\n    def f(self): ...'),
    (silent_options, "hf_tuner/methods/a.py", "class Config:\n    r: int = option(8, '')"),
    (silent_options, "hf_tuner/methods/a.py", "class Config:\n    r: int = 8"),
    (work_at_import, "hf_tuner/a.py", "print('hello')"),
    (work_at_import, "hf_tuner/a.py", "X = open('x').read()"),
    (work_at_import, "hf_tuner/a.py", "for i in range(3):\n    pass"),
    (global_statements, "hf_tuner/a.py", "def f():\n    global x\n    x = 1"),
    (unsafe_calls, "hf_tuner/a.py", "from torch import load\nload('x')"),
    (unsafe_calls, "hf_tuner/a.py", "import evaluate as e\ne.load('accuracy')"),
    (unsafe_calls, "hf_tuner/a.py", "f(trust_remote_code=True)"),
    (unsafe_calls, "hf_tuner/a.py", "import yaml\nyaml.load(x, Loader=yaml.Loader)"),
    (unsafe_calls, "hf_tuner/a.py", "eval('1')"),
]


@pytest.mark.fault("S3")
@pytest.mark.parametrize("check, path, text", BROKEN, ids=[check.__name__ for check, *_ in BROKEN])
def test_the_checks_can_fail(check: Check, path: str, text: str) -> None:
    """Each check finds the file that breaks its rule, and names it."""
    other = Source("hf_tuner/data/b.py", '"""B."""\nfrom hf_tuner.data.a import g')
    faults = list(check([Source(path, text), other]))
    assert faults
    assert faults[0].startswith(f"{path}:")


def test_the_checks_can_pass() -> None:
    """A file that keeps every rule is not blamed: the guards, `model.eval()` and a recipe's script door are fine."""
    text = '"""A recipe."""\nfrom hf_tuner import launch\n\nDEFAULTS = {"model": "x"}\n\n\ndef recipe(run):\n'
    text += '    """Train."""\n    return run.model.eval()\n\n\nif __name__ == "__main__":\n    launch(recipe)\n'
    assert [fault for check, _, _ in CHECKS for fault in check([Source("recipes/a.py", text)])] == []
