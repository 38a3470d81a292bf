"""Stand-ins for the objects of the other side: each use of one is a request to it (`Peer.request`)."""

from __future__ import annotations

import contextlib
import types
from typing import TYPE_CHECKING, Any

from klear.judge.contents import DUNDERS, OPEN_DUNDERS

if TYPE_CHECKING:
    from klear.judge.channel import Peer

PEER: Any = None  # this process's end of the channel


class Ref(int):
    """The number of an object, in a message."""


def forwarder(name: str) -> Any:
    """A dunder method of a stand-in."""
    def forward(self, /, *args, **kwargs):
        return PEER.special(name, self, *args, **kwargs)

    def wait(self, stops: bool = False):  # __await__: the other side's loop runs in slices, both sides' tasks go on
        task = PEER.request("task", self)
        try:
            while not PEER.request("pump", task):
                yield
            return PEER.request("result", task, stops=stops)
        except BaseException:
            PEER.request("cancel", task)
            raise

    async def following(self):
        class Step:
            __await__ = lambda _: wait(PEER.special("__anext__", self), True)
        return await Step()

    forward = {"__await__": wait, "__anext__": following}.get(name, forward)
    forward.__name__ = name
    return forward


FORWARD = {name: forwarder(name) for name in sorted(DUNDERS)}


def hidden(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in OPEN_DUNDERS or name == "_as_parameter_"


class Space(dict):
    """`__dict__` of the program's module or of one of its classes, for mock.patch and monkeypatch."""

    def __init__(self, owner, local=()):
        super().__init__(local)
        self.owner = owner

    def get(self, name, default=None):
        if dict.__contains__(self, name):
            return dict.__getitem__(self, name)
        found, value = PEER.request("own", self.owner, name)
        return value if found else default

    def __missing__(self, name):
        found, value = PEER.request("own", self.owner, name)
        if found:
            return value
        raise KeyError(name)


class Attributes(dict):
    """`__dict__` of an object of the test, in the program."""

    def __init__(self, owner):
        super().__init__(PEER.request("vars", owner))
        self.owner = owner

    def __setitem__(self, name, value):
        PEER.request("put", self.owner, name, value)
        super().__setitem__(name, value)

    def update(self, *args, **kwargs):
        for name, value in dict(*args, **kwargs).items():
            self[name] = value


class FarMeta(type):
    """The type of stand-ins for the other side's classes. A class that the test derives from one gets a twin there."""

    def mro(cls):
        own, more = super().mro(), type.__dict__["__dict__"].__get__(cls).get("_far_bases", ())
        cut = own.index(Far) + 1 if more else 1
        real = [c for c in more if type(c) is not FarMeta and c not in own]
        return [cls, *(c for c in more if type(c) is FarMeta), *own[1:cut], *real, *own[cut:]]

    def __new__(meta, name, bases, space, **options):
        cls = type.__new__(meta, name, bases, space)
        far = {k: v for k, v in space.items() if k not in ("__module__", "__qualname__", "__classcell__")}
        PEER.register(PEER.request("subclass", name, bases, far, options), cls)
        return cls

    def __init__(cls, *_, **__):
        pass

    def __call__(cls, /, *args, **kwargs):
        return PEER.request("call", cls, *args, **kwargs)

    def __getattr__(cls, name):
        if hidden(name):
            raise AttributeError(name)
        return PEER.request("getattr", cls, name)

    def __setattr__(cls, name, value):
        PEER.request("setattr", cls, name, value)
        if name in type.__dict__["__dict__"].__get__(cls):
            type.__setattr__(cls, name, value)

    def __delattr__(cls, name):
        PEER.request("delattr", cls, name)

    def __instancecheck__(cls, x):
        return type.__instancecheck__(cls, x) or bool(cls._far_checks and PEER.request("isinstance", x, cls))

    def __contains__(cls, x):
        return any(x is v or x == v for v in cls)

    __dict__ = property(lambda cls: Space(cls, type.__dict__["__dict__"].__get__(cls)))
    __bases__ = property(lambda cls: PEER.request("getattr", cls, "__bases__"))
    __annotations__ = property(lambda cls: PEER.request("getattr", cls, "__annotations__"))
    __bool__ = lambda cls: True
    __iter__ = lambda cls: iter(PEER.request("list", cls))
    __len__ = lambda cls: PEER.request("len", cls)
    __getitem__ = lambda cls, key: PEER.request("getitem", cls, key)
    __dir__ = lambda cls: PEER.request("dir", cls)


class Far:
    """A stand-in for an object of the other side: one for one object, its attributes and methods are calls."""

    __slots__ = ()

    def __getattr__(self, name):
        if hidden(name):
            raise AttributeError(name)
        return PEER.request("getattr", self, name)

    def __setattr__(self, name, value):
        PEER.request("setattr", self, name, value)
        if isinstance(getattr(type(self), name, None), types.FunctionType):
            object.__setattr__(self, name, value)

    def __delattr__(self, name):
        PEER.request("delattr", self, name)
        with contextlib.suppress(AttributeError):
            object.__delattr__(self, name)

    __init_subclass__ = classmethod(lambda cls, **options: None)
    __repr__ = FORWARD["__repr__"]
    __copy__ = lambda self: PEER.request("copy", self)
    __deepcopy__ = lambda self, memo: PEER.request("deepcopy", self)
    __dir__ = lambda self: PEER.request("dir", self)


def far_function(peer: Peer, number: int, waits: bool) -> Any:
    def stub(*args, **kwargs):
        return peer.request("call", Ref(number), *args, **kwargs)

    async def waiting(*args, **kwargs):
        return await peer.request("call", Ref(number), *args, **kwargs)

    return waiting if waits else stub
