"""Load checkpoints of the original Demucs, `torch.save((class, args, kwargs, state))`, without running their code.

torch.load with `weights_only` refuses the container from before torch 1.6, where a class is a persistent id with its
source code. A pickle can also do harm without code: twelve bytes can fill the memory, and a value inside itself can
take for ever. This unpickler therefore knows only what a checkpoint needs: the opcodes that torch.save writes, text and
numbers in lists, tuples and dictionaries, and descriptions of tensors, which are built after the pickle has ended.
"""

import inspect
import io
import pickle  # only to subclass its Unpickler
import zipfile
from collections import namedtuple

import torch

from lib.common.untrusted import check_archive, unpacked
from lib.demucs import Demucs
from lib.models.generators import assemble, unreadable

ORIGINAL = "demucs.model.Demucs"  # name of the class in the original's checkpoints
PICKLES = 2**20  # bytes; the largest published model has 30,000, mostly source code
MAGIC = 0x1950A86A20F9469CFC6C  # first value of the container from before torch 1.6
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
            read = _read_zip if file.read(2) == b"PK" else _read_stream
            file.seek(0)
            (name, args, kwargs, described), numbers = read(file)
        state = {
            key: numbers[storage.key].as_strided(size, stride, offset)
            for key, (storage, offset, size, stride, *_) in described.items()
        }
        if sum(tensor.nbytes for tensor in state.values()) > sum(tensor.nbytes for tensor in numbers.values()):
            raise ValueError("tensors share their numbers")
        if name != ORIGINAL:
            raise ValueError("not Demucs")
        positional = dict(zip(inspect.signature(Demucs).parameters, args, strict=False))
        return assemble(Demucs, positional | kwargs, state)
    except Exception as error:  # a damaged file may raise anything
        raise unreadable(path, error, "Demucs v1 checkpoint") from error


def _read_zip(file):
    """What the pickle holds, and {key: numbers} of its storages."""
    check_archive(file)
    with zipfile.ZipFile(file) as archive:
        [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        reader = _Unpickler(_Pickles(archive.open(pickled).read(PICKLES)))
        content, folder = reader.load(), pickled.removesuffix(".pkl")
        return content, {k: _numbers(storage, archive.read(f"{folder}/{k}")) for k, storage in reader.storages.items()}


def _read_stream(file):
    head, numbers = _Pickles(file.read(PICKLES)), {}
    if _Unpickler(head).load() != MAGIC:
        raise ValueError("not a checkpoint")
    _protocol, _machine = _Unpickler(head).load(), _Unpickler(head).load()
    reader = _Unpickler(head)
    content, keys = reader.load(), _Unpickler(head).load()
    file.seek(head.tell())
    for key in keys:
        storage, count = reader.storages[key], int.from_bytes(file.read(8), "little")
        numbers[key] = _numbers(storage, file.read(count * storage.dtype.itemsize))
    return content, numbers


def _numbers(storage, content):
    if len(content) != storage.count * storage.dtype.itemsize:
        raise ValueError("a storage of another size")
    return torch.frombuffer(bytearray(content), dtype=storage.dtype)


class _Pickles(io.BytesIO):
    def readline(self):
        line = super().readline()
        if not line.endswith(b"\n"):
            raise EOFError("half a name")
        return line


# The arguments of torch's function that builds a tensor
_Tensor = namedtuple("_Tensor", "storage offset size stride requires_grad hooks")
_Storage = namedtuple("_Storage", "key dtype count")


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


DTYPES = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
KNOWN = {
    **{f"torch.{name}Storage": dtype for name, dtype in DTYPES.items()},
    ORIGINAL: ORIGINAL,
    "collections.OrderedDict": _Names,
    "torch._utils._rebuild_tensor_v2": _Tensor,
}


class _Unpickler(pickle._Unpickler):  # the C version allocates as many memos as a pickle claims
    dispatch = {
        code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in OPCODES.split())
    } | {
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Names()),
        pickle.BUILD[0]: lambda self: self.stack.pop(),  # attributes, which nothing here needs
    }

    def __init__(self, file):
        super().__init__(file)
        self.memo, self.storages = _Memo(), {}

    def find_class(self, module, name):
        found = f"{module}.{name}"
        if found not in KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {found} is not on the allow-list")
        return KNOWN[found]

    def persistent_load(self, saved):
        match saved:
            case ("module", str(name), *_):
                return name
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *_):
                return self.storages.setdefault(key, _Storage(key, dtype, count))
        raise pickle.UnpicklingError("an unknown kind of persistent id")
