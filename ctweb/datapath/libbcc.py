"""The part of BCC's library that loads programs, reads and writes maps, without the compiler in it.

The whole library is some 60 MB of LLVM in the process: it is for the compiler's process alone (compiler.py).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from ctweb.datapath.image import BuildError

_COUNT = ctypes.POINTER(c_uint32)
# bcc/libbpf.h of BCC. All of them return a descriptor or 0, or -1 with errno set.
_BATCH_READ = (c_int, c_void_p, c_void_p, c_void_p, c_void_p, _COUNT)
_BATCH_WRITE = (c_int, c_void_p, c_void_p, _COUNT)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "bcc_prog_load": (c_int, c_char_p, c_char_p, c_size_t, c_char_p, c_uint32, c_int, c_void_p, c_uint32),
    "bpf_lookup_elem": (c_int, c_void_p, c_void_p),
    "bpf_update_elem": (c_int, c_void_p, c_void_p, ctypes.c_ulonglong),
    "bpf_delete_elem": (c_int, c_void_p),
    "bpf_get_next_key": (c_int, c_void_p, c_void_p),
    "bpf_lookup_batch": _BATCH_READ,
    "bpf_update_batch": _BATCH_WRITE,
}


@functools.cache
def lib() -> Any:
    """The library. Raises BuildError where it is not."""
    try:
        loaded = ctypes.CDLL("libbcc_bpf.so.0", use_errno=True)
    except OSError:  # a distribution that has it in one piece
        try:
            loaded = ctypes.CDLL("libbcc.so.0", use_errno=True)
        except OSError as error:
            raise BuildError(f"BCC's library does not load: {error}; install libbpfcc (make setup does)") from None
    for name, arguments in _FUNCTIONS.items():
        getattr(loaded, name).argtypes = arguments
    return loaded


def version() -> str:
    """BCC's. Raises BuildError where BCC, the distribution's module, is not: the rest of ctweb runs without it."""
    found = importlib.util.find_spec("bcc")  # which does not import it
    if found is None or found.origin is None:
        raise BuildError(
            "BCC is not there: install python3-bpfcc and run with the distribution's own Python (make setup does both)"
        )
    file = Path(found.origin).with_name("version.py")
    written = re.search(r"__version__ *= *['\"]([^'\"]+)", file.read_text()) if file.exists() else None
    return written[1] if written else "unknown"
