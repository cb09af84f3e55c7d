"""Tell whether a checkpoint file holds code, by reading its opcodes; nothing of it is executed."""

import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hf_tuner.errors import ArtifactError

PLAIN = re.compile(
    r"collections (OrderedDict|defaultdict|Counter)|"
    r"torch (\w+Storage|Size|device|float\d+|bfloat16|u?int\d+|bool|complex\d+|Tensor|Generator)|"
    r"torch\.storage (UntypedStorage|TypedStorage)|"
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state|device_tensor_from_numpy|qtensor)|"
    r"torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter|torch\.serialization _get_layout|"
    r"numpy\.(_core|core)\.multiarray (_reconstruct|scalar)|numpy (ndarray|dtype)|numpy\.dtypes \w+DType|"
    r"_codecs encode|(__builtin__|builtins) (set|frozenset|bytearray|complex|int|float|str|bool|list|tuple|dict)"
)
"""Names that the weights-only reader of torch gives out as well: they make tensors and plain containers."""
STRANGE = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "POP", "POP_MARK", "DUP")
"""Opcodes that torch.save never writes; most of them name objects in ways that only running them would tell."""
PICKLED_BYTES = 1_000_000_000
LEGACY_PICKLES = 5
"""A file of the old format is that many pickles (magic, version, system, object, keys), then bare numbers."""


def refuse_code(path: Path) -> None:
    """Raise ArtifactError when a .pt, .pth or .bin file names anything but tensors and plain containers.

    Both formats of torch.save and bare pickles are read. A file that is none of these, or cut short, is refused too.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file:
            # As torch decides: a zip announced only at the end of a file is none to it.
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if not zipped and tarfile.is_tarfile(path):  # whose first member may be called like a pickle
                raise ArtifactError(f"{where} is an archive of an old torch, which is not read; refusing to load it")
            found = next(_zipped(path) if zipped else _named(file), None)
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile, NotImplementedError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ArtifactError(f"{where} is damaged or not a checkpoint file ({reason}); refusing to load it") from error
    if found:
        raise ArtifactError(f"{where} contains code ({found}); refusing to load it")


def _zipped(path: Path) -> Iterator[str]:
    """What the pickles of a zip name that is not plain."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [m.filename for m in members]
        if len(set(names)) < len(names):
            raise ValueError("two members of one name")
        packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise ValueError(f"{packed[0]} is compressed, which torch.save never does")
        if any(Path(n).name == "constants.pkl" or "/code/" in n for n in names):
            yield "a TorchScript program"
        pickles = [m for m in members if m.filename.endswith(".pkl")]
        if not pickles:
            raise ValueError("no data.pkl in it")
        for member in pickles:
            if member.file_size > PICKLED_BYTES:
                raise ValueError(f"{member.filename} is larger than {PICKLED_BYTES:,} bytes")
            with archive.open(member) as file:
                yield from _named(file, 1)


def _named(file: IO[bytes], most: int = LEGACY_PICKLES) -> Iterator[str]:
    """Names and opcodes in up to `most` pickles that stand one after the other, those that are not plain."""
    for number in range(most):
        start = file.read(1)
        if not start and number == 1:
            return  # a bare pickle
        if start != b"\x80":
            raise ValueError("neither a zip nor a pickle")
        yield from _strange(file)


def _strange(file: IO[bytes]) -> Iterator[str]:
    """The suspicious opcodes of one pickle whose first byte was read."""
    if file.read(1) not in (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ValueError("unknown pickle protocol")
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and not PLAIN.fullmatch(str(argument)):
            yield str(argument).replace(" ", ".")[:60]
        elif opcode.name in STRANGE:
            yield f"opcode {opcode.name}"
