"""Which task the columns of rows are meant for, where the one that was asked for finds none of its own in them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from hf_tuner import catalog
from hf_tuner.errors import UsageError


def tasks_for(columns: Iterable[str]) -> dict[str, int]:
    """Tasks whose signs stand among the columns, and how many columns their largest sign has."""
    names = {column.lower() for column in columns}
    sizes = {name: [len(sign) for sign in catalog.task_class(name).signs if names.issuperset(sign)]
             for name in catalog.names("tasks")}  # fmt: skip
    return {name: max(found) for name, found in sizes.items() if found}


@contextmanager
def right_task(task: str, columns: Sequence[str], given: str | None) -> Iterator[None]:
    """Name the task that columns are meant for in the UsageError of one that cannot read them, unless `given` says which."""
    try:
        yield
    except UsageError as error:
        found = tasks_for(columns)
        most = max(found.values(), default=0)
        if given or found.get(task, 0) == most:
            raise
        others = " or ".join(f"--task {name}" for name, size in found.items() if size == most)
        lines = [line for line in str(error).split("\n") if not line.startswith("say which: --columns")]
        raise UsageError(
            "\n".join([*lines, f"{task} is not for such rows; their columns are those of {others}"])
        ) from error
