"""The channel between the verifier's process and the program's: `Peer` is one end of it, on either side."""

from __future__ import annotations

import contextlib
import copy
import importlib.machinery
import operator
import os
import random
import struct
import sys
import threading
import traceback
import types
from json import dumps, loads  # as they are now: a test may patch them
from time import monotonic
from typing import Any

from klear.judge import standins
from klear.judge.contents import (BINDING, CLOSED, COUNTED, DUNDERS, FIXED, IMMUTABLE, JUDGED, LIBRARIES, PATHLIKE,
                                  SAID, TYPES, VALUES, VIEWS, content_kinds, inert)
from klear.judge.prelude import HELPERS, NODES, ListNode, TreeNode
from klear.judge.standins import FORWARD, Attributes, Far, FarMeta, Ref, far_function, hidden

PASS, WRONG, ERROR = 42, 43, 44  # exit codes of the verifier
GUARDED = ("_pytest", "pytest", "unittest.case", "unittest.suite", "unittest.runner", "unittest.result", "hypothesis",
           "sandbox", "klear.judge")


def awaited(awaitable: Any) -> Any:
    """A task for it, in the loop that runs or in this process's own."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = standins.PEER.loop = standins.PEER.loop or asyncio.new_event_loop()

    async def run():
        try:
            return await awaitable
        except BaseException as error:  # the program may never ask for the result
            if standins.PEER.module is None:
                standins.PEER.failed_in_the_program(error)
            raise
    return loop.create_task(run())


def pump(task: Any) -> bool:
    loop = task.get_loop()
    if not task.done() and not loop.is_running():
        timer = loop.call_later(0.005, loop.stop)
        task.add_done_callback(stop := lambda _: loop.stop())
        loop.run_forever()
        timer.cancel()
        task.remove_done_callback(stop)
    return task.done()


def special(name: str, x: Any, /, *args, **kwargs) -> Any:  # (here and below: a program's keywords may be called so)
    method = getattr(type(x), name, None)
    if method is None:
        raise TypeError(f"{type(x).__name__!r} object has no {name}")
    if type(method).__module__ == "unittest.mock":  # takes no self, as it is no function
        return method(*args, **kwargs)
    return method(x, *args, **kwargs)


class Peer:
    """One end of the channel between the verifier and the program's child: requests, replies and nested call-backs, a
    JSON line each. What arrives is rebuilt from builtin data; nothing that the other side sends is ever executed."""

    OPERATIONS = {
        "call": lambda f, /, *a, **k: f(*a, **k), "getattr": getattr, "setattr": setattr, "delattr": delattr,
        "put": lambda x, name, value: vars(x).__setitem__(name, value),
        "special": special, "task": awaited, "pump": pump, "result": lambda task, stops=False: task.result(),
        "cancel": lambda task: task.cancel()}
    # What the verifier may ask of the program besides:
    FREE = {"getitem": operator.getitem, "isinstance": isinstance, "list": list, "len": len, "dir": dir, "vars": vars,
            "own": lambda x, name: (name in vars(x), vars(x).get(name)),
            "copy": copy.copy, "deepcopy": copy.deepcopy}
    LINE = 64 << 20

    def __init__(self, fd: int, module: types.ModuleType | None, clock: int = -1):
        """`module`: the program's; None in the verifier. `clock`: memory file for the time that the verifier waits."""
        standins.PEER = self
        self.reader, self.fd, self.module, self.clock = os.fdopen(os.dup(fd), "rb", 1 << 16), fd, module, clock
        self.next = self.parity = 0 if module is None else 1  # whose number it is
        self.objects: dict[int, Any] = {}
        self.ids: dict[int, int] = {}  # id() -> number
        self.snapshots: dict[int, list] = {}  # number -> the contents that the other side knows
        self.held: dict[int, type] = {}  # number -> the builtin type of the contents
        self.pending: dict[int, list] = {}
        self.queue: list[int] = []
        self.todo: list[tuple] = []
        self.drops: list[int] = []
        self.kinds, self.names = content_kinds()
        self.room = 1000  # so many stand-ins before those that are gone are looked for
        self.depth, self.used, self.trust, self.loop, self.flags, self.waited = 0, 0, False, None, {}, 0.0
        self.nodes = True  # ListNode and TreeNode are held on both sides
        self.notes: list[list] = []  # warnings and log records of the program
        self.lock = threading.RLock()
        self.failed = ""  # the program's last error, for the report
        self.raised: dict[int, BaseException] = {}  # by the program
        self.swallowed: Any = None  # a failed assert of the test that the program could swallow
        self.known: dict[Any, Any] = {"offsets": [0, 0]}  # environment, folder, random state, patches: as last sent

    # -- the wire
    def send(self, kind: str, operation: str, args: tuple, kwargs: dict, trace: str = "") -> None:
        message = {"kind": kind, "op": operation, "args": [self.pack(a) for a in args],
                   "kw": {k: self.pack(v) for k, v in kwargs.items()}}
        if self.depth < 2 or sum(map(len, self.snapshots.values())) < 2000:  # a key function is called 100,000 times
            message["set"] = changed = []
            for number, old in list(self.snapshots.items()):
                x = self.objects[number]
                new = self.kinds[self.held[number]][0](x)
                same = len(new) == len(old) and all(map(operator.is_, new, old))
                if not same and not (self.held[number].__name__ in ("bytearray", "ndarray") and new == old):
                    self.snapshots[number] = new
                    changed.append([number, [self.pack(v) for v in new]])
        if self.flags:
            message["more"] = self.surroundings()
        if self.depth == 1:
            self.prune()
        message["new"] = new = []
        for number in self.queue:  # grows while it is walked
            new.append(self.describe(number))
        self.queue.clear()
        message["drop"], self.drops, message["trace"] = self.drops, [], trace
        data = dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self.fd, data[: 1 << 20]):]
        except OSError as error:
            self.lost(error)

    def lost(self, error: BaseException) -> None:
        """The other side is gone or sends what no peer sends. That ends the verifier: a test must not catch it."""
        if self.module is not None:
            raise error
        os.write(2, f"{self.failed}\nsandbox: the program's side of the channel: {error}\n".encode(errors="replace"))
        os._exit(ERROR)

    def receive(self) -> dict:
        start = monotonic()
        if self.clock >= 0:
            os.pwrite(self.clock, struct.pack("dd", self.waited, start), 0)
        line = self.reader.readline(self.LINE)
        self.waited += monotonic() - start
        if self.clock >= 0:
            os.pwrite(self.clock, struct.pack("dd", self.waited, 0), 0)
        if not line.endswith(b"\n"):
            self.lost(EOFError("the program ended before it answered"))
        try:
            message = self.take(loads(line))
        except Exception as error:
            self.lost(error)
        if message.get("more"):
            self.surround(message["more"])
        return message

    def take(self, message: dict) -> dict:
        """The message, with the objects that it describes made and the contents that it tells filled in."""
        for description in message["new"]:
            if description[0] in self.objects or description[0] % 2 == self.parity:
                raise PermissionError("number of another object")
            self.pending[description[0]] = description
        for number in [d[0] for d in message["new"]]:
            self.build(number)
        self.todo += [(number, values) for number, values in message.get("set", ()) if number in self.snapshots
                      and not (number % 2 == self.parity and "mock" in getattr(self.objects[number], "__dict__", ()))]
        while self.todo:
            number, values = self.todo.pop(0)
            x = self.objects[number]
            read, _, fill = self.kinds[self.held[number]]
            fill(x, [self.unpack(v) for v in values])
            self.snapshots[number] = read(x)
        for number in message["drop"]:
            self.forget(number)
        return message

    def request(self, operation: str, /, *args, **kwargs) -> Any:
        with self.lock:  # threads of either side take turns
            return self.ask(operation, args, kwargs)

    def ask(self, operation: str, args: tuple, kwargs: dict) -> Any:
        self.depth += 1
        try:
            self.used += operation in ("call", "special", "getitem", "task") and self.module is None
            self.send("do", operation, args, kwargs)
            while (message := self.receive())["kind"] == "do":
                self.perform(message)
            try:
                (result,) = [self.unpack(a) for a in message["args"]]
            except Exception as error:
                self.lost(error)
        finally:
            self.depth -= 1
        if message["kind"] == "return":
            return result
        if not isinstance(result, BaseException):  # a class, which would be raised past `raised` and `ended`
            self.lost(TypeError("an error that is none"))
        if self.module is None:
            self.failed = message["trace"] if operation != "getattr" else self.failed
            self.raised[id(result)] = result
            result = self.ended(result, operation, args, kwargs)
        raise result

    def ended(self, error: BaseException, operation: str, args: tuple, kwargs: dict) -> BaseException:
        """The error; but one that would only end a loop of the test early (as PEP 479 has it) is a RuntimeError."""
        asyncio = sys.modules.get("asyncio")  # a task that is cancelled fails no group of tasks
        if asyncio and isinstance(error, asyncio.CancelledError) and not self.flags.get("cancels"):
            return RuntimeError("the program raised CancelledError")
        stop = isinstance(error, (StopIteration, StopAsyncIteration))
        frame, names, allowed = sys._getframe(3), set(), False
        if not stop and not isinstance(error, IndexError) or operation == "result" and kwargs.get("stops"):
            return error
        if operation == "special" and args[0] in ("__next__", "__anext__"):
            return error
        while frame:
            if frame.f_code.co_filename == self.flags.get("file"):
                names.add(frame.f_code.co_name)
                allowed |= any(first <= frame.f_lineno <= last for first, last in self.flags["stops"])
            frame = frame.f_back
        if stop and not allowed or names & {"__next__", "__anext__", "__getitem__", "__iter__"}:
            return RuntimeError(f"the program raised {type(error).__name__}")
        return error

    def perform(self, message: dict) -> None:
        self.depth += 1
        try:
            operation = message["op"]
            args = [self.unpack(a) for a in message["args"]]
            kwargs = {k: self.unpack(v) for k, v in message["kw"].items()}
            if self.module is None:  # of what the test handed out, never of a class or value that a message names
                of = message["args"][operation in ("special", "isinstance")]
                if not (isinstance(of, list) and of[0] == "@"):
                    raise PermissionError(f"{operation} of nothing that the test gave")
                self.permit(operation, args)
            function = self.OPERATIONS.get(operation) or (self.FREE.get(operation) or getattr(self, "do_" + operation))
            kind, result, trace = "return", function(*args, **kwargs), ""
            if operation == "vars" and self.module is None:
                result = dict(result)  # the test's objects keep their methods
        except BaseException as error:
            kind, result, trace = "raise", error, ""
            if self.module is not None:
                with contextlib.suppress(Exception):
                    trace = "".join(traceback.format_exception(error, limit=-4))[-2000:]
            else:
                self.failed_in_the_program(error)
        args = kwargs = None
        try:
            self.send(kind, "", (result,), {}, trace)
        except (TypeError, ValueError, RecursionError) as error:
            self.send("raise", "", (error,), {}, trace)
        self.depth -= 1

    def failed_in_the_program(self, error: Any) -> None:
        """A failed assert of the test that passes through the program, which could swallow it, is final."""
        if isinstance(error, BaseExceptionGroup):
            error = error.subgroup(AssertionError) and AssertionError(str(error))
        failed = isinstance(error, AssertionError) or type(error).__module__.startswith("_pytest")
        for frame, line in traceback.walk_tb(getattr(error, "__traceback__", None)):  # `assert x > 5` of a None
            if frame.f_code.co_filename == self.flags.get("file") and frame.f_code.co_name not in (
                    "<lambda>", "<genexpr>"):  # `assert safe(lambda: 1 / 0) is None`
                failed |= any(first <= line <= last for first, last in self.flags["asserts"])
        if failed and id(error) not in self.raised:
            self.swallowed = error

    def permit(self, operation: str, args: list) -> None:
        """What a program may do with the verifier's objects: no way to frames, globals, modules, tools of tests."""
        x, name = (args[1], args[0]) if operation == "special" else (args[0], args[1] if len(args) > 1 else "")
        kind = type(x)
        mock = any(c.__module__ == "unittest.mock" for c in kind.__mro__)
        mine = lambda c: isinstance(c, type) and not self.global_ref(c) and not any(
            b.__module__.startswith((*GUARDED, "unittest.mock")) for b in c.__mro__)
        if operation in ("task", "pump", "result", "cancel"):
            ok = True
        elif operation in ("call", "special"):
            binds = name not in BINDING or kind in (property, staticmethod, classmethod)
            ok = (operation == "call" or name in DUNDERS and binds) and (not isinstance(x, type) or mine(x))
        elif operation in ("getattr", "setattr", "delattr", "put"):
            open_name = name in {f"__{n}__" for n in (
                "name doc qualname annotations dataclass_fields members match_args".split())}
            ok = type(name) is str and kind not in CLOSED and (not isinstance(x, type) or mine(x)) and (
                open_name or not name.startswith(("__", "format"))) and (
                not mock or not name.startswith(
                    ("_", "configure", "reset", "attach", "mock_", "call_args", "method_calls")))
            if operation != "getattr":  # attributes of an object, not its methods, and nothing of a class
                ok = ok and not isinstance(x, type) and not open_name and not callable(getattr(kind, name, None)) and (
                    mine(kind) or not hasattr(kind, name))
        elif operation in ("vars", "dir", "copy", "deepcopy"):
            ok = mine(kind)
        else:
            ok = mine(name) if operation == "isinstance" else mine(x) and (
                operation in ("list", "len", "getitem") or (operation, name) == ("own", "__annotations__"))
        unittest = sys.modules.get("unittest")
        ok = ok and (not kind.__module__.startswith(GUARDED) or kind.__name__ == "LocalPath" and name in PATHLIKE)
        if not ok or unittest and isinstance(x, unittest.TestCase):
            refused = AttributeError if operation == "getattr" else PermissionError
            raise refused(f"{operation} {name} of the test's {kind.__name__}")

    def serve(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self.perform(self.receive())

    # -- what the verifier asks the program's module for
    def do_hello(self, flags: dict) -> None:
        self.flags = flags
        self.known["environ"], self.known["cwd"] = dict(os.environ), os.getcwd()
        self.nodes = flags.get("nodes", True)
        if flags.get("notes"):
            import logging
            import warnings

            handler = logging.Handler()
            handler.emit = lambda r: self.notes.append(
                [r.name, r.levelno, r.getMessage(), r.exc_info[1] if r.exc_info else None])
            logging.basicConfig(level=1, handlers=[handler])
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: self.notes.append([message])

    def do_name(self, name: str) -> Any:
        return getattr(sys.modules.get("solution", self.module), name)

    def do_entry(self, name: str, *args) -> Any:
        """Calls the entry of an fn_name row: a method of Solution wherever there is one, as LiveCodeBench does."""
        return getattr(self.module.Solution() if hasattr(self.module, "Solution") else self.module, name)(*args)

    def do_module(self) -> Any:
        return self.module

    def do_subclass(self, name: str, bases: tuple, space: dict, options: dict) -> int:
        cls = types.new_class(name, bases, options, lambda ns: ns.update(space | {"__module__": "solution"}))
        self.register(self.next, cls)
        self.next += 2
        return self.next - 2


    # -- objects to and from JSON
    def base(self, x: Any) -> type | None:
        """The builtin type whose contents x has, that are held on both sides; None: x stays where it is."""
        kind = type(x)
        if kind.__name__ in NODES and kind not in self.kinds and self.module and type(kind) is type and self.nodes:
            fields = NODES[kind.__name__]
            own = {k for k, v in vars(kind).items() if isinstance(v, types.FunctionType) and not k.startswith("__")}
            if not own and hasattr(x, fields[0]) and getattr(x, "__dict__", {}).keys() <= set(fields):
                return HELPERS[kind.__name__]
        return next((c for c in kind.__mro__ if c in self.kinds), None)

    def global_ref(self, x: Any) -> list | None:
        """How the other side finds a class or function of the standard library, of numpy or of pytest by itself."""
        module, name = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
        if type(module) is not str or type(name) is not str or module.split(".")[0] not in LIBRARIES:
            return None
        try:
            return ["g", module, name] if operator.attrgetter(name)(sys.modules[module]) is x else None
        except (AttributeError, KeyError):
            return None

    def library(self, module: str, name: str) -> Any:
        """What `global_ref` names. In the verifier: loaded classes alone, none that decides about tests, wherever the
        message finds it."""
        if self.module is not None:
            return operator.attrgetter(name)(importlib.import_module(module))
        x = sys.modules.get(module) if module.split(".")[0] in LIBRARIES else None
        for part in name.split("."):  # a class or a class in a class, not through an imported module
            x = vars(x).get(part) if isinstance(x, type) or x is sys.modules.get(module) is not None else None
        owners = [str(c.__module__) for c in x.__mro__] if isinstance(x, type) else ["sandbox"]
        if any(o.startswith(GUARDED + ("bdb", "doctest", "unittest")) or o.split(".")[0] not in LIBRARIES
               for o in owners):
            return type(str(name), (Exception,), {"__module__": str(module)})
        return x

    def pack(self, x: Any) -> Any:
        kind = type(x)
        if x is None or kind in (bool, int, str, float):
            return x
        if (number := self.ids.get(id(x))) is not None:
            return ["@", number]
        if kind is tuple or kind is frozenset:
            return ["t" if kind is tuple else "s", *map(self.pack, x)]
        if kind is bytes:
            return ["b", x.decode("latin-1")]
        if kind is Ref:
            return ["@", int(x)]
        if kind is types.TracebackType:
            return None
        if x is NotImplemented or x is ...:
            return ["k", "builtins", repr(x)]
        if kind.__module__ == "dataclasses":
            for name in (n for n, v in vars(sys.modules["dataclasses"]).items() if v is x):
                return ["k", "dataclasses", name]
        if kind.__name__ in VALUES and (ref := self.global_ref(kind)):
            return ["v", ref, *map(self.pack, VALUES[kind.__name__](x))]
        if kind.__name__ in VIEWS and kind.__module__ == "builtins":
            return ["w", kind.__name__, *map(self.pack, x)]
        if kind.__module__.startswith("numpy") and "numpy" in sys.modules:
            numpy = sys.modules["numpy"]
            if isinstance(x, (numpy.generic, numpy.dtype)):
                array = numpy.zeros(0, x) if isinstance(x, numpy.dtype) else numpy.asarray(x)
                return ["n", *self.kinds[numpy.ndarray][0](array)]
        if isinstance(x, type) or self.module is None and kind in (types.FunctionType, types.BuiltinFunctionType):
            if ref := self.global_ref(x):
                return ref
        if kind is types.ModuleType and self.module is None:
            return ["m", x.__name__]
        return self.export(x)

    def export(self, x: Any) -> list:
        if (number := self.ids.get(id(x))) is None:
            number, self.next = self.next, self.next + 2
            self.register(number, x)
            self.queue.append(number)
        return ["@", number]

    def register(self, number: int, x: Any) -> None:
        self.objects[number], self.ids[id(x)] = x, number

    def forget(self, number: int) -> None:
        self.ids.pop(id(self.objects.pop(number, None)), None)
        self.snapshots.pop(number, None)
        self.held.pop(number, None)

    def prune(self) -> None:
        """Forgets what only these tables hold. The owner of an object that stays leaves that to the other side."""
        if self.flags.get("threads"):
            return
        copied = lambda kind: kind in self.kinds and kind is not types.FunctionType
        here = [n for n in self.snapshots if copied(type(self.objects[n]))]
        if len(self.objects) > self.room:
            far = [n for n in self.objects if n % 2 != self.parity and n not in self.snapshots]
            here += [n for n in far if not isinstance(self.objects[n], type)]
        for number in here:
            if number not in self.queue and sys.getrefcount(self.objects[number]) <= 2:
                self.drops.append(number)
                self.forget(number)
        self.room = max(1000, 2 * len(self.objects)) if len(self.objects) > self.room else self.room

    def describe(self, number: int) -> list:
        x = self.objects[number]
        kind = type(x)
        if isinstance(x, type):
            return self.describe_class(number, x)
        base = self.base(x)
        if base is types.FunctionType:
            waits = bool(x.__code__.co_flags & 128)  # an async function
            head = [number, "f", x.__name__, x.__qualname__, x.__doc__, x.__module__, waits, self.signature(x)]
        elif base in (ListNode, TreeNode):
            head = [number, "o", ["h", base.__name__], base.__name__]
        else:
            plain = self.global_ref(kind) if kind is base or base is BaseException else None
            head = [number, "o", plain or self.export(kind), base and base.__name__]
        if base is None:
            return head
        self.held[number] = base
        values = self.kinds[base][0](x)
        if self.kinds[base][2] and base is not BaseException:
            self.snapshots[number] = values
        return [*head, [self.pack(v) for v in values]]

    def signature(self, function: Any) -> list | None:
        if not self.flags.get("inspect"):
            return None
        signature = importlib.import_module("inspect").signature(function)
        missing = signature.empty
        given = lambda v: [] if v is missing else [self.pack(v)]
        parameters = signature.parameters.values()
        rows = [[p.name, int(p.kind), given(p.default), given(p.annotation)] for p in parameters]
        return [rows, given(signature.return_annotation)]

    def describe_class(self, number: int, kind: type) -> list:
        base = next((c for c in kind.__mro__ if c in self.kinds), None)
        held = set(base.__mro__) if base else {object}
        if base is BaseException:
            held = {c for c in kind.__mro__ if issubclass(c, BaseException) and self.global_ref(c)} | {object}
        others = [c for c in kind.__mro__[1:] if c not in held]
        owner: dict[str, type] = {}
        for c in kind.__mro__:
            if c is not object and (c not in held or c is kind):
                for name in vars(c):
                    owner.setdefault(name, c)
        functions, dunders, absent, attributes = {}, [], [], []
        for name, c in owner.items():
            if c is not kind and not self.global_ref(c):
                continue  # of a class that has a stand-in itself
            value = vars(c)[name]
            reading = not hidden(name) or name in ("__getitem__", "__iter__", "__contains__")
            if base in IMMUTABLE and hasattr(base, name) and reading:
                continue  # a str whose startswith always says yes is the text that it is
            if name in DUNDERS and not (name in ("__array__", *BINDING) and base):
                (absent if value is None else dunders).append(name)
            elif isinstance(value, types.FunctionType) and (not name.startswith("__") or name == "__init__"):
                functions[name] = self.pack(value)
            elif c is not kind and not name.startswith("_"):
                attributes.append(name)
        checks = type(kind).__instancecheck__ is not type.__instancecheck__
        reals = [self.pack(c) for c in kind.__mro__[1:-1] if c in held and c is not object and base is BaseException]
        real = self.global_ref(kind) or kind in TYPES and ["g", "types", TYPES[kind]]
        return [number, "c", kind.__name__, kind.__qualname__, kind.__module__, base and base.__name__,
                [self.pack(c) for c in others], functions, dunders, absent, attributes, checks, real, reals]

    def unpack(self, v: Any) -> Any:
        if not isinstance(v, list):
            return v
        tag, rest = v[0], v[1:]
        if tag == "@":
            return self.build(rest[0])
        if tag == "g":
            x = self.library(*rest)  # as a value not a class that would catch a failed assert of the test
            catches = self.module is None and x in (BaseException, Exception, AssertionError)
            if self.module is None and not catches and not inert(x):  # CDLL, FileIO, attrgetter, type: as a value never
                return type(x.__name__, (), {"__module__": str(x.__module__)})
            return type(x.__name__, (Exception,), {}) if catches else x
        if tag == "t":
            return tuple(map(self.unpack, rest))
        if tag == "s":
            return frozenset(map(self.unpack, rest))
        if tag == "b":
            return rest[0].encode("latin-1")
        if tag == "k" and rest[0] in ("builtins", "dataclasses"):
            plain = {"Ellipsis": ..., "NotImplemented": NotImplemented}
            x = plain[rest[1]] if rest[1] in plain else getattr(importlib.import_module("dataclasses"), rest[1])
            if rest[1] in plain or type(x).__module__ == "dataclasses":
                return x
        if tag == "v" and rest[0][2] in VALUES:
            return self.library(*rest[0][1:])(*map(self.unpack, rest[1:]))
        if tag == "w":
            values = [self.unpack(x) for x in rest[1:]]
            return (dict.fromkeys(values).keys() if rest[0] == "dict_keys" else
                    dict(values).items() if rest[0] == "dict_items" else dict(enumerate(values)).values())
        if tag == "n":
            array = self.kinds[self.names["ndarray"]][1](None, rest)
            return array[()] if array.ndim == 0 else array.dtype
        if tag == "m" and self.module is not None:
            return importlib.import_module(rest[0])
        raise ValueError(f"unknown data {tag!r}")

    def build(self, number: int) -> Any:
        """The object of that number; one that a message describes is made now, its contents once all are made."""
        if (description := self.pending.pop(number, None)) is None:
            return self.objects[number]
        what, *rest = description[1:]
        if what == "c":
            x = self.build_class(*rest)
        elif what == "f":
            name, qualname, doc, module, waits, signature, values = rest
            x = far_function(self, number, bool(waits))
            x.__name__, x.__qualname__, x.__doc__, x.__module__ = str(name), str(qualname), doc, module
            if signature:
                self.sign(x, *signature)
            self.todo.append((number, values))
            self.held[number] = types.FunctionType
        else:
            cls, base = self.unpack_class(rest[0]), self.names.get(rest[1])
            if base is None:
                if type(cls) is not FarMeta:
                    raise PermissionError(f"{cls} is no class of the other side")
                x = object.__new__(cls)
            else:
                values, (_, make, fill), self.held[number] = rest[2], self.kinds[base], base
                fits = (type(cls) is FarMeta or base is BaseException) and issubclass(cls, base)
                if not fits and cls is not base and not (self.module is not None and base.__name__ in NODES):
                    raise PermissionError(f"{cls.__name__} with the contents of {base.__name__}")
                now = base in IMMUTABLE or base is BaseException or base.__name__ == "ndarray"
                x = make(cls, [self.unpack(v) for v in values] if now else values)
                if fill and base.__name__ != "ndarray":
                    self.todo.append((number, values))
                elif fill:
                    self.snapshots[number] = self.kinds[base][0](x)
        self.register(number, x)
        return x

    def unpack_class(self, v: list) -> type:
        if v[0] == "h":
            own = getattr(self.module, v[1], None)
            return own if isinstance(own, type) else HELPERS[v[1]]
        x = self.library(*v[1:]) if v[0] == "g" else self.unpack(v)
        if v[0] != "g" and type(x) is not FarMeta and self.module is None:
            raise PermissionError(f"{x!r} is no class of the program")
        return x

    def build_class(self, name, qualname, module, base, others, functions, dunders, absent, attributes, checks, real,
                    reals) -> type:
        """The stand-in of a class. The rules hold whatever the message says: dunders are forwarders of DUNDERS, other
        names are plain identifiers, and what a builtin of IMMUTABLE has stays that builtin's."""
        real = self.library(*real[1:]) if real else None
        contents = self.names[base] if base else None
        number = lambda c: c.__module__ in ("fractions", "numbers")  # Decimal asks a Rational: 0 / 0 would equal all
        far = tuple(c for c in map(self.unpack_class, others) if isinstance(c, type) and not number(c))
        fixed = set(dir(contents)) - SAID - FIXED if contents in IMMUTABLE else COUNTED if base == "Counter" else set()
        open_name = lambda n: type(n) is str and n.isidentifier() and n not in fixed and (
            not n.startswith(("__", "_far")) and n != "mro")
        space = {"__module__": str(module), "__qualname__": str(qualname), "_far_checks": bool(checks),
                 "_far_bases": far}
        own = (lambda x: standins.PEER.request("vars", x)) if self.module is None else Attributes
        space["__dict__"] = property(lambda self: own(self))
        space |= {n: self.unpack(f) for n, f in functions.items() if open_name(n) or n == "__init__"}
        read = lambda n: property(lambda self: standins.PEER.request("getattr", self, n))
        space |= {n: read(n) for n in attributes if open_name(n)}
        inherited = {n for c in far for k in c.__mro__[:-1] if type(k) is not FarMeta for n in vars(k)}  # of a library
        space |= {n: FORWARD[n] for n in (inherited & DUNDERS).union(dunders) if n in FORWARD and n not in fixed}
        space |= {n: None for n in absent if n in DUNDERS and n not in fixed}
        below = {n for c in far for k in c.__mro__ if type(k) is FarMeta for n in vars(k)}
        space |= {n: getattr(contents, n) for n in fixed & below}
        if real and not number(real) and (self.module is not None or not issubclass(real, (*self.kinds, bool))):
            space["__class__"] = property(lambda self: real)
        bases = [self.names[base]] if base else []
        if base == "BaseException":
            bases = [c for c in map(self.unpack_class, reals) if issubclass(c, BaseException)]
            bases = [c for c in bases if not any(d is not c and issubclass(d, c) for d in bases)] or [Exception]
        elif base == "function":
            bases, space["__class__"] = [], property(lambda self: types.FunctionType)
        for far_bases in (space["_far_bases"], tuple(c for c in space["_far_bases"] if type(c) is FarMeta), ()):
            with contextlib.suppress(TypeError):  # a layout that does not fit
                return type.__new__(FarMeta, str(name), (Far, *bases), space | {"_far_bases": far_bases})
        return type.__new__(FarMeta, str(name), (Far, *bases[:1]), space | {"_far_bases": ()})

    def sign(self, x: Any, parameters: list, returned: list) -> None:
        inspect = importlib.import_module("inspect")
        kinds = list(inspect._ParameterKind)
        given = lambda key, v: {key: self.unpack(v[0])} if v else {}
        built = [inspect.Parameter(n, kinds[k], **given("default", d), **given("annotation", a))
                 for n, k, d, a in parameters]
        x.__signature__ = inspect.Signature(built, **given("return_annotation", returned))
        noted = {p.name: p.annotation for p in built if p.annotation is not p.empty}
        x.__annotations__ = noted | given("return", returned)

    # -- what a test compares, and what surrounds both sides
    def special(self, name: str, x: Any, /, *args, **kwargs) -> Any:
        """A dunder method of a stand-in. What the program's object says about a plain value of the test is not asked:
        the test compares the builtin contents that it has, if any; except, for all but equality, where the test made
        the object itself (`made`)."""
        trust, self.trust = self.trust, False
        if self.module is None and name in JUDGED and type(type(args[0])) is not FarMeta:
            trust = trust or name == "__radd__" and args[0] == 0 and type(args[0]) is int  # where sum() starts
            if not trust or name in ("__eq__", "__ne__"):
                base = next((c for c in type(x).__mro__ if c in self.kinds), None)
                if base is not None and hasattr(base, name):
                    return getattr(base, name)(x, *args)
                if name == "__contains__" and hasattr(type(x), "__iter__"):
                    return any(v is args[0] or v == args[0] for v in x)
                return NotImplemented if name != "__contains__" else special(name, None, *args)
        if self.module is None and name in ("__exit__", "__aexit__"):
            self.failed_in_the_program(args[1])
        return self.request("special", name, x, *args, **kwargs)

    def surroundings(self) -> dict:
        known, more = self.known, {}
        if self.module is not None and self.flags["output"]:
            texts = []
            for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
                with contextlib.suppress(Exception):
                    stream.flush()
                data = os.pread(fd, 1 << 22, known["offsets"][fd - 1])
                known["offsets"][fd - 1] += len(data)
                texts.append(data.decode("utf-8", "replace"))
            if any(texts):
                more["out"] = texts
        if self.notes:
            more["notes"], self.notes = [[self.pack(v) for v in note] for note in self.notes], []
        if self.flags["environ"] and (now := self.environment()) != known["environ"]:
            more["environ"] = known["environ"] = now
        if self.flags["cwd"] and os.getcwd() != known["cwd"]:
            more["cwd"] = known["cwd"] = os.getcwd()
        if self.module is None:
            if self.flags["seed"] and (now := self.randomness()) != known.get("seed"):
                more["seed"] = known["seed"] = now
            for row in self.flags["patched"]:
                now = self.watched(*row)
                if now is not known.get(tuple(row), now):
                    original = now is known[(*row, "original")]
                    more.setdefault("patch", []).append([*row, [] if original else [self.pack(now)]])
                known[tuple(row)] = now
                known.setdefault((*row, "original"), now)
        return more

    def surround(self, more: dict) -> None:
        for stream, text in zip((sys.stdout, sys.stderr), more.get("out", ()) if self.module is None else ()):
            if text:
                stream.write(text)
        for note in more.get("notes", ()) if self.module is None else ():
            name, *rest = map(self.unpack, note)
            if rest:
                importlib.import_module("logging").getLogger(name).log(*rest[:-1], exc_info=rest[-1])
            elif isinstance(name, Warning) and not isinstance(name, (StopIteration, StopAsyncIteration, SystemExit,
                                                                     KeyboardInterrupt, GeneratorExit)):
                importlib.import_module("warnings").warn(name, stacklevel=2)
        asked = lambda what: what in more and (self.module is not None or self.flags.get(what))
        if asked("environ"):
            new = {str(k): str(v) for k, v in more["environ"].items() if not str(k).startswith(("PY", "HYPOTHESIS"))}
            for key in self.environment().keys() - new.keys():
                del os.environ[key]
            os.environ.update(new)
            self.known["environ"] = self.environment()
        if asked("cwd"):
            with contextlib.suppress(OSError):
                os.chdir(more["cwd"])
            self.known["cwd"] = os.getcwd()
        if "seed" in more and self.module is not None:  # the test's random state is the test's
            state, numpy_state = more["seed"]
            random.setstate((state[0], tuple(state[1]), state[2]))
            if numpy_state:
                importlib.import_module("numpy").random.set_state(numpy_state)
        for module, name, value in more.get("patch", ()) if self.module is not None else ():
            owner = importlib.import_module(module)
            self.known.setdefault((module, name), getattr(owner, name, None))
            setattr(owner, name, self.unpack(value[0]) if value else self.known[(module, name)])

    def environment(self) -> dict:
        return {k: v for k, v in os.environ.items() if not k.startswith(("PY", "HYPOTHESIS"))}

    def randomness(self) -> list:
        numpy = sys.modules.get("numpy")
        state = numpy and numpy.random.get_state()
        return [random.getstate(), state and [state[0], state[1].tolist(), *state[2:]]]

    def watched(self, module: str, name: str) -> Any:
        value = getattr(sys.modules.get(module), name, None)
        return self.known.get((module, name, "original")) if type(value).__module__.startswith("_pytest") else value
