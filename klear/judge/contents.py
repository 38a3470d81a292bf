"""What travels by value or is held on both sides, and which names of a class the other side may give."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from json import dumps, loads  # as they are now: a test may patch them

from klear.judge.prelude import NODES, ListNode, TreeNode

LIBRARIES = set(sys.stdlib_module_names) - {"__main__"} | {"numpy", "sortedcontainers"}
ARITHMETIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod".split()
# The program's own answer counts only against another object of its own, or where the test itself made the object.
JUDGED = {f"__{p}{name}__" for name in ARITHMETIC for p in ("", "r", "i")} | {
    f"__{name}__" for name in "eq ne lt le gt ge contains".split()}
DUNDERS = JUDGED | {f"__{name}__" for name in (
    "len bool iter next getitem setitem delitem call enter exit hash str repr format int float index complex round "
    "trunc floor ceil abs neg pos invert reversed missing bytes fspath length_hint aiter anext aenter aexit await "
    "array get set delete set_name").split()}
BINDING = ("__get__", "__set__", "__delete__", "__set_name__")
OPEN_DUNDERS = {f"__{name}__" for name in (
    "name doc qualname module annotations defaults wrapped members dataclass_fields dataclass_params slots match_args "
    "version abstractmethods orig_class args origin notes cause self func array all isabstractmethod dict").split()}
# What a subclass of an immutable builtin may say itself: asked between objects of the program, or how it is shown.
SAID = JUDGED - {"__contains__"} | {f"__{name}__" for name in "str repr format hash neg pos abs invert".split()}
FIXED = {f"__{name}__" for name in "init new class module qualname doc dict weakref init_subclass subclasshook".split()}
PATHLIKE = ("__fspath__", "__str__", "__format__")  # of pytest's tmpdir
IMMUTABLE = (int, str, float, complex, bytes, tuple, frozenset)
# Counter compares and subtracts by these, in Python: a `__getitem__` that always says 1 would equal every count.
COUNTED = set("__getitem__ __missing__ __iter__ items keys values get".split())


@functools.cache
def content_kinds() -> tuple[dict[type, tuple], dict[str, type]]:
    """{builtin type: (values of x, a new x of a class and values, fill x)}: contents that both sides hold alike; and
    the types by name."""
    import collections as c

    new = lambda base: lambda cls, v: base.__new__(cls)
    encoded = lambda v: v[0].encode("latin-1")

    def immutable(base: type, values) -> tuple:
        return values, lambda cls, v: base.__new__(cls, v if base in (tuple, frozenset) else v[0]), None

    def mapping(base: type) -> tuple:
        def fill(x, v):
            base.clear(x)
            for key, value in zip(v[::2], v[1::2]):
                base.__setitem__(x, key, value) if base is not c.Counter else dict.__setitem__(x, key, value)
        return lambda x: [e for pair in base.items(x) for e in pair], new(base), fill

    def fill_set(x, v):
        set.clear(x)
        set.update(x, v)

    def fill_default(x, v):
        x.default_factory = v[0]
        fill_dict(x, v[1:])

    def fill_deque(x, v):
        c.deque.clear(x)
        c.deque.extend(x, v[1:])

    def new_deque(cls, v):
        x = c.deque.__new__(cls)
        c.deque.__init__(x, (), v[0])
        return x

    def new_error(cls, v):
        with contextlib.suppress(TypeError):  # UnicodeDecodeError wants five arguments
            if type(cls) is type:
                return cls(*v[3:])
        return cls.__new__(cls, *v[3:]) if type(cls) is type else BaseException.__new__(cls, *v[3:])

    def fill_error(x, v):
        for name, value in zip(("__cause__", "__context__", "__suppress_context__"), v):
            object.__setattr__(x, name, value)

    def fill_node(x, v):
        for name, value in zip(NODES[type(x).__name__], v):
            setattr(x, name, value)

    def new_array(v):
        import numpy

        dtype, shape, rest = numpy.lib.format.descr_to_dtype(loads(v[0])), v[2:2 + v[1]], v[2 + v[1]:]
        if not dtype.hasobject:
            return numpy.ndarray(shape, dtype, bytearray(rest[0], "latin-1"))
        x = numpy.empty(len(rest), object)
        x[:] = rest
        return x.reshape(shape)

    def fill_array(x, v):
        x[...] = new_array(v)

    fill_dict = mapping(dict)[2]
    kinds = {base: immutable(base, lambda x, exact=exact: [exact(x)]) for base, exact in (
        (int, int.__int__), (float, float.__float__), (complex, complex.__complex__), (str, str.__str__))} | {
        bytes: (lambda x: [bytes.decode(x, "latin-1")], lambda cls, v: bytes.__new__(cls, encoded(v)), None),
        tuple: immutable(tuple, lambda x: list(tuple.__iter__(x))),
        frozenset: immutable(frozenset, lambda x: list(frozenset.__iter__(x))),
        list: (lambda x: list(list.__iter__(x)), new(list), lambda x, v: list.__setitem__(x, slice(None), v)),
        bytearray: (lambda x: [x.decode("latin-1")], new(bytearray),
                    lambda x, v: bytearray.__setitem__(x, slice(None), encoded(v))),
        set: (lambda x: list(set.__iter__(x)), new(set), fill_set),
        c.deque: (lambda x: [x.maxlen, *c.deque.__iter__(x)], new_deque, fill_deque),
        c.defaultdict: (lambda x: [x.default_factory, *mapping(dict)[0](x)], new(c.defaultdict), fill_default),
        c.OrderedDict: mapping(c.OrderedDict), c.Counter: mapping(c.Counter), dict: mapping(dict),
        BaseException: (lambda x: [x.__cause__, x.__context__, x.__suppress_context__, *(
            OSError.__reduce__(x)[1] if isinstance(x, OSError) else
            (x.message, x.exceptions) if isinstance(x, BaseExceptionGroup) else x.args)], new_error, fill_error),
        types.FunctionType: (lambda x: [e for pair in x.__dict__.items() for e in pair], None,
                             lambda x, v: x.__dict__.update(zip(v[::2], v[1::2]))),
        ListNode: (lambda x: [getattr(x, n, None) for n in NODES[type(x).__name__]], new(object), fill_node)}
    kinds[TreeNode] = kinds[ListNode]
    if "array" in sys.modules:
        a = sys.modules["array"].array
        kinds[a] = (lambda x: [x.typecode, *x], lambda cls, v: a.__new__(cls, v[0]),
                    lambda x, v: x.__setitem__(slice(None), a(v[0], v[1:])))
    if "numpy" in sys.modules:
        n = sys.modules["numpy"]
        head = lambda x: [dumps(n.lib.format.dtype_to_descr(x.dtype)), x.ndim, *x.shape]
        body = lambda x: list(x.flat) if x.dtype.hasobject else [x.tobytes().decode("latin-1")]
        kinds[n.ndarray] = (lambda x: head(x) + body(x),
                            lambda cls, v: new_array(v), fill_array)
    return kinds, {kind.__name__: kind for kind in kinds}


INERT = set("abc array collections _collections_abc contextlib datetime decimal enum fractions functools ipaddress "
            "itertools numbers pathlib queue random re statistics threading time typing uuid zoneinfo "
            "sortedcontainers".split())


def inert(c: type) -> bool:
    """Whether a class of a library may be a value in the verifier, where the test may call it with what the program
    gives: that runs no code, opens no file, walks no attributes. (Not `ctypes.CDLL`, `io.FileIO`, `attrgetter`.)"""
    top, numpy = c.__module__.split(".")[0], sys.modules.get("numpy")
    if issubclass(c, type) or c.__name__ == "ForwardRef":
        return False
    return issubclass(c, BaseException) or top in INERT or top == "builtins" and (
        c not in TYPES or c is types.NoneType) or numpy is not None and (
        issubclass(c, (numpy.generic, numpy.dtype)) or c is numpy.ndarray)


VALUES = {name: lambda x: x.__reduce_ex__(2)[1] for name in (
    "Fraction Decimal date datetime time timedelta PosixPath PurePosixPath IPv4Address IPv6Address").split()}
VALUES |= {"range": lambda x: (x.start, x.stop, x.step), "complex": lambda x: (x.real, x.imag),
           "UUID": lambda x: (str(x),), "ZoneInfo": lambda x: (x.key,),
           "timezone": lambda x: x.__getinitargs__(), "memoryview": lambda x: (bytes(x),)}
VALUES["slice"] = VALUES["range"]
TYPES = {v: k for k, v in vars(types).items() if isinstance(v, type) and k != "CoroutineType"}
CLOSED = {getattr(types, name + "Type") for name in (
    "Function Method BuiltinFunction MethodWrapper MethodDescriptor WrapperDescriptor Code Frame Traceback Module "
    "Generator Coroutine AsyncGenerator Cell").split()}
VIEWS = ("dict_keys", "dict_values", "dict_items")
