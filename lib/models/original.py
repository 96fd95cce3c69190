"""Load checkpoints of the original Demucs, `torch.save((class, args, kwargs, state))`, without running their code.

torch.load with `weights_only` refuses the container from before torch 1.6, where a class is a persistent id with its
source code. A pickle can also do harm without code: twelve bytes can fill the memory, and a value inside itself can
take for ever. This unpickler therefore knows only what a checkpoint needs: the opcodes that torch.save writes, text and
numbers in lists, tuples and dictionaries, and descriptions of tensors, which are built after the pickle has ended.
"""

import dataclasses
import inspect
import io
import pickle  # only to subclass its Unpickler
import zipfile

import torch

from lib.common.untrusted import unpacked
from lib.demucs import Demucs
from lib.models.generators import assemble, unreadable

ORIGINAL = "demucs.model.Demucs"  # name of the class in the original's checkpoints
PICKLES = 2**20  # bytes; the largest published model has 30,000, mostly source code
MAGIC = 0x1950A86A20F9469CFC6C  # first value of the container from before torch 1.6
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in (
    ("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16), ("BFloat16", torch.bfloat16),
)}  # fmt: skip
OPCODES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_LIST APPEND APPENDS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL BINPERSID "
    "REDUCE"
)


def load_published(path):
    """The `Demucs` in a checkpoint of the original, zip or older, plain or gzip-compressed, on the CPU in float32.

    Memory stays within a few times the file's size. Raises `UserError` if the file is missing or damaged, holds
    another class, or names anything but Demucs and tensors.
    """
    try:
        with unpacked(path) as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            (name, args, kwargs, state), storages = (_read_zip if zipped else _read_stream)(file)
        state = {key: described.tensor() for key, described in state.items()}
        if sum(tensor.nbytes for tensor in state.values()) > sum(storage.nbytes for storage in storages):
            raise ValueError("tensors share their numbers")
        if name != ORIGINAL:
            raise ValueError("not Demucs")
        positional = dict(zip(inspect.signature(Demucs).parameters, args, strict=False))
        return assemble(Demucs, positional | kwargs, state)
    except Exception as error:  # a damaged file may raise anything
        raise unreadable(path, error, "Demucs v1 checkpoint") from error


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        reader = _Unpickler(_Pickles(archive.open(pickled).read(PICKLES)))
        content = reader.load()
        for key, storage in reader.storages.items():
            storage.fill(archive.read(pickled.removesuffix(".pkl") + f"/{key}"))
    return content, reader.storages.values()


def _read_stream(file):
    head = _Pickles(file.read(PICKLES))
    if _Unpickler(head).load() != MAGIC:
        raise ValueError("not a checkpoint")
    _protocol, _machine = _Unpickler(head).load(), _Unpickler(head).load()
    reader = _Unpickler(head)
    content, keys = reader.load(), _Unpickler(head).load()
    file.seek(head.tell())
    for key in keys:
        count, storage = int.from_bytes(file.read(8), "little"), reader.storages[key]
        if count != storage.count:
            raise ValueError("a storage of another size")
        storage.fill(file.read(storage.nbytes))
    return content, reader.storages.values()


class _Pickles(io.BytesIO):
    def readline(self):
        line = super().readline()
        if not line.endswith(b"\n"):
            raise EOFError("half a name")
        return line


@dataclasses.dataclass(eq=False)
class _Storage:
    dtype: torch.dtype
    count: int
    numbers: torch.Tensor = None  # (count,)

    @property
    def nbytes(self):
        return self.count * self.dtype.itemsize

    def fill(self, content):
        if len(content) != self.nbytes:
            raise ValueError("a storage of another size")
        self.numbers = torch.frombuffer(bytearray(content), dtype=self.dtype)


@dataclasses.dataclass(eq=False)
class _Tensor:
    """A tensor as the pickle describes it: the arguments of torch's function that builds it."""

    storage: _Storage
    offset: int
    size: tuple
    stride: tuple
    requires_grad: bool
    hooks: dict

    def tensor(self):
        return self.storage.numbers.as_strided(self.size, self.stride, self.offset)


class _Names(dict):
    """A dictionary whose keys must be text: hashing nested tuples can take for ever, or overflow the stack."""

    def __init__(self):
        super().__init__()

    def __setitem__(self, key, value):
        if not isinstance(key, str):
            raise pickle.UnpicklingError("a key is not text")
        super().__setitem__(key, value)


class _Memo(dict):
    """A memo of text and names only: with containers, a short pickle could describe a value of any size."""

    def __setitem__(self, index, value):
        if isinstance(value, str | type | torch.dtype):
            super().__setitem__(index, value)


class _Unpickler(pickle._Unpickler):  # the C version allocates as many memos as a pickle claims
    dispatch = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in (getattr(pickle, name) for name in OPCODES.split())
    } | {
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Names()),
        pickle.BUILD[0]: lambda self: self.stack.pop(),  # attributes, which nothing here needs
    }

    def __init__(self, file):
        super().__init__(file)
        self.memo, self.storages = _Memo(), {}

    def find_class(self, module, name):
        found = f"{module}.{name}"
        known = {ORIGINAL: ORIGINAL, "collections.OrderedDict": _Names, "torch._utils._rebuild_tensor_v2": _Tensor}
        if found not in known | DTYPES:
            raise pickle.UnpicklingError(f"GLOBAL {found} is not on the allow-list")
        return (known | DTYPES)[found]

    def persistent_load(self, saved):
        match saved:
            case ("module", str(name), *_):
                return name
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *_):
                return self.storages.setdefault(key, _Storage(dtype, count))
        raise pickle.UnpicklingError("an unknown kind of persistent id")
