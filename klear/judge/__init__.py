"""Judges function, class and pytest tests: the verifier's half and the program's half of one channel (`Peer`), used by
sandbox.py.

Two processes, one set of objects. Immutable plain data travels by value. Every other object has a number and is one
object on either side: builtin mutable containers (list, dict, set, deque, Counter, ndarray, ...) are held on both
sides and what has changed goes along with the next message; all other objects stay where they were made, the other
side holds one stand-in (`Far`) for one object, of a stand-in class with the same name, bases and methods, and each use
of it is a call. So a test sees identity, aliases, changes in place, `isinstance`, `with`, operators, exceptions with
their types, callbacks, subclasses, awaitables. A subclass of a builtin is a real instance of that builtin with the
same contents. What a test prints, warns, logs, patches (`builtins.input`, `solution.x`), seeds, sets in the
environment and writes into files (the scratch folder is one) is there on both sides.

Whose name it is. A name imported from `solution`, or read as `solution.x`, is the program's, always. Of the other
names those are the program's that the test neither binds nor finds in builtins or the standard library
(`program_names` says which of the latter count, from the test alone; `undecided`: for those that it leaves open both
must agree). All others are the test's: the program cannot replace them, whatever it defines.

What is trusted, and what a forger could gain. A comparison, arithmetic or `in` between an object that the program
returned and a plain value of the test is never asked of the program: it is done on the builtin contents of the object,
and one without contents equals nothing. The program's own methods answer where the test, read alone, asks for them:
- between two objects of the program (`P(1) == P(1)`, `f(3) == Color.RED`): an `__eq__` that is always true passes
  these, as would two equal constants in place of both;
- operators of an object that the test itself made by calling a name with a capital of the program (`v * 2`, `v - 2`,
  `5 in tree`, `Money(5) < 10`, found in the syntax tree: `made`): they are the interface under test, as
  `tree.contains(5)` would be, and a program whose `__sub__`, `__contains__` or `__lt__` lies passes. `==` and
  `!=` are not among them: `Money(5) == 5` is false, for the program's `__eq__` would see the expected value;
- `len`, `bool`, `str`, `hash`, iteration, items, attributes, methods: claims that make the object's value, made
  without the expected value. A method gets the arguments that the test passes, as everywhere. An exception of the
  program can be any of Python's, but never one that skips or ends tests (SkipTest, pytest's outcomes), and
  StopIteration or IndexError do not end a loop of the test early. A failed `assert` inside a callback or `with` block
  of the program fails the test, though the program swallows it. The program may call the test's functions and use the
  attributes and operators of objects of the test's classes; frames, globals, code, modules and the tools of pytest and
  unittest are refused (`permit`).
The end of the program's process, or a message that no peer sends, ends the verifier at once (`Peer.lost`): it is no
exception. Messages are hostile data: what they say of classes is held to the rules of `Peer.library` and
`Peer.build_class`.

To read in this order: prelude.py (names that every program finds), names.py and operators.py (what a test alone says),
contents.py (what travels by value or is held on both sides), standins.py, channel.py (`Peer`), verifier.py (a test's
life)."""
