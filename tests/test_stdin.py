"""stdin programs end as CPython ends: every program here runs in the sandbox and under this interpreter, and both must print
the same and agree on whether it succeeded."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sandbox

INPUT = "3 4\nab\u00e9\nlast"
DEL = "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('del', self.n)\n"
PROGRAMS = {
    # ---- what is printed at the very end
    "replaced stdout, printed before": "import io, sys\nprint('a')\nsys.stdout = io.StringIO()\nprint('b')",
    "replaced stdout, printed at exit": "import io, sys\nout = sys.stdout = io.StringIO()\nprint('b')\nsys.__stdout__.write(out.getvalue())",
    "restored stdout": "import io, sys\nsys.stdout = io.StringIO()\nprint('b')\ntext = sys.stdout.getvalue()\nsys.stdout = sys.__stdout__\nprint(text)",
    "stdout over the same buffer": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('\u00e9')",
    "stdout detached": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\nprint(1)",
    "stdout detached, none left": "import sys\nprint(1)\nsys.stdout.detach()",
    "stdout of its own with write only": "import sys\nclass W:\n    def write(self, t): sys.__stdout__.write(t)\nsys.stdout = W()\nprint(1)",
    "stdout of its own with flush": "import sys\nclass W:\n    t = ''\n    def write(self, t): self.t += t\n    def flush(self): sys.__stdout__.write(self.t); self.t = ''\n"
                                    "sys.stdout = W()\nprint(1)",
    "flush that raises": "import sys\nclass W:\n    def write(self, t): pass\n    def flush(self): raise OSError\nsys.stdout = W()\nprint(1)",
    "atexit order": "import atexit\natexit.register(print, 1)\natexit.register(print, 2)\nprint(3)",
    "atexit in atexit": "import atexit\natexit.register(lambda: atexit.register(print, 'inner'))",
    "atexit after sys.exit": "import atexit, sys\natexit.register(print, 'bye')\nsys.exit(0)",
    "atexit that raises": "import atexit\natexit.register(lambda: 1 / 0)\nprint(1)",
    "atexit and a StringIO": "import atexit, io, sys\nbuf = io.StringIO()\nold, sys.stdout = sys.stdout, buf\natexit.register(lambda: old.write(buf.getvalue()))\nprint(7)",
    "fast io by os.write": "import os, sys, atexit, io\nb = io.BytesIO()\natexit.register(lambda: os.write(1, b.getvalue()))\nsys.stdout = io.TextIOWrapper(b, write_through=True)\nprint(5)",
    "weakref.finalize": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')\nprint(1)",
    "__del__ of a global": DEL + "a = A(1)\nb = A(2)\nprint('end')",
    "__del__ in a cycle": DEL + "a = A(1)\na.me = a\nprint('end')",
    "__del__ of a function's default": DEL + "def f(x=A(1)): pass\nprint('end')",
    "__del__ of a class attribute": DEL + "class B: a = A(1)\nprint('end')",
    "__del__ of what builtins keep": DEL + "import builtins\na = A(1)\nbuiltins.keep = lambda: a\nprint('end')",
    "__del__ sees None": "class A:\n    def __del__(self): print(helper is None)\ndef helper(): pass\nimport builtins\nbuiltins.keep = lambda: helper\n_a = A()\nprint('end')",
    "__del__ after an exception": DEL + "a = A(1)\nraise ValueError",
    "__del__ after sys.exit": DEL + "import sys\na = A(1)\nsys.exit()",
    "__del__ prints to a replaced stdout": DEL + "import io, sys\na = A(1)\nsys.stdout = io.StringIO()",
    "__del__ that raises": "class A:\n    def __del__(self): raise ValueError\na = A()\nprint(1)",
    "__del__ with gc disabled": DEL + "import gc\ngc.disable()\na = A(1)\na.me = a",
    "__exit__ of a suspended generator": "def g():\n    try: yield 1\n    finally: print('closed')\nx = g()\nprint(next(x))",
    "suspended generator in a cycle": "def g():\n    me.append(x)\n    try: yield 1\n    finally: print('closed')\nme = []\nx = g()\nprint(next(x))",
    "contextmanager left open": "import contextlib\n@contextlib.contextmanager\ndef c():\n    try: yield 1\n    finally: print('left')\nm = c()\nm.__enter__()",
    "threading.local with __del__": DEL + "import threading\nt = threading.local()\nt.a = A(1)\nprint('end')",
    # ---- descriptors
    "open(1) unflushed": "f = open(1, 'w')\nf.write('hello')",
    "open(1) unflushed, closefd": "f = open(1, 'w', closefd=False)\nf.write('hello')\nprint('x')",
    "open(1) in a function": "def f():\n    g = open(1, 'w')\n    g.write('hello')\nf()",
    "open(1) kept in a list": "out = [open(1, 'w')]\nout[0].write('hello')",
    "open(1) kept in a cycle": "class A: pass\na = A()\na.a, a.f = a, open(1, 'w')\na.f.write('hello')",
    "open(1) kept by a function": "f = open(1, 'w')\ndef w(t): f.write(t)\nw('hello')",
    "os.fdopen(1)": "import os\nf = os.fdopen(1, 'w')\nf.write('hello')",
    "os.fdopen of a dup": "import os\nf = os.fdopen(os.dup(1), 'wb', 0)\nf.write(b'hello')",
    "BufferedWriter": "import io\nf = io.BufferedWriter(io.FileIO(1, 'w'))\nf.write(b'hello')",
    "BufferedWriter, big": "import io\nf = io.BufferedWriter(io.FileIO(1, 'w'), 1 << 20)\nf.write(b'hello\\n' * 20000)",
    "TextIOWrapper over BufferedWriter": "import io, os\nf = io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.dup(1), 'w')))\nf.write('hello')",
    "sys.stdout is open(1)": "import sys\nsys.stdout = open(1, 'w')\nprint(1)",
    "sys.stdout is open(1), big buffer": "import sys\nsys.stdout = open(1, 'w', 1 << 20)\nprint('y' * 300000)",
    "sys.stdout is fdopen(1), __stdout__ too": "import os, sys\nsys.stdout = sys.__stdout__ = os.fdopen(1, 'w', 1 << 16)\nprint(1)",
    "dup2 away and back": "import os, sys\nprint('a', flush=True)\nkeep = os.dup(1)\nn = os.open('/dev/null', os.O_WRONLY)\nos.dup2(n, 1)\nprint('lost', flush=True)\nos.dup2(keep, 1)\nprint('b')",
    "printf of C": "import ctypes\nctypes.CDLL(None).printf(b'hi %d\\n', 5)",
    "puts and print": "import ctypes\nctypes.CDLL(None).puts(b'c')\nprint('p', flush=True)",
    "putchar without a newline": "import ctypes\nfor c in b'abc': ctypes.CDLL(None).putchar(c)",
    "writelines of bytes": "import sys\nsys.stdout.buffer.writelines([b'1\\n', b'2'])",
    "buffer and text mixed": "import sys\nprint('a', flush=True)\nsys.stdout.buffer.write(b'b\\n')\nsys.stdout.buffer.flush()\nprint('c')",
    "reconfigured": "import sys\nsys.stdout.reconfigure(line_buffering=True, newline='\\n')\nprint(1)",
    "stdout closed": "import sys\nprint('x')\nsys.stdout.close()",
    "stdout closed by os.close": "import os\nprint('x', flush=True)\nos.close(1)",
    "stdout closed by os.close, unflushed": "import os\nprint('x')\nos.close(1)",
    "stdout and stderr closed": "import sys\nprint('x')\nsys.stdout.close()\nsys.stderr.close()",
    "stdout None": "import sys\nprint('x')\nsys.stdout = None\nprint('y')",
    "stderr None and an error": "import sys\nprint('x')\nsys.stderr = None\n1 / 0",
    "stdout deleted": "import sys\nprint('x')\ndel sys.stdout",
    "stderr to /dev/null": "import os, sys\nsys.stderr = open(os.devnull, 'w')\nprint('x')",
    "stdin closed": "import sys\nprint(sys.stdin.read())\nsys.stdin.close()",
    "write to a closed stdout": "import sys\nsys.stdout.close()\nprint(1)",
    # ---- names of descriptors and of the program
    "/dev/stdin": "print(open('/dev/stdin').read())",
    "/dev/stdin by lines": "for line in open('/dev/stdin'): print(len(line))",
    "/dev/stdin exists": "import os\nprint(os.path.exists('/dev/stdin'), sum(1 for _ in open('/dev/stdin')))",
    "/dev/fd/0": "import sys\nsys.stdin = open('/dev/fd/0')\nprint(input())",
    "/proc/self/fd/0": "print(open('/proc/self/fd/0', 'rb').read())",
    "/dev/stdout": "f = open('/dev/stdout', 'w')\nf.write('z')",
    "/dev/stdout, closed": "with open('/dev/stdout', 'w') as f: f.write('z\\n')\nprint(1)",
    "/dev/stderr": "open('/dev/stderr', 'w').write('z')\nprint(1)",
    "os.open of /dev/stdin": "import os\nprint(os.read(os.open('/dev/stdin', os.O_RDONLY), 3))",
    "Path of /dev/stdin": "from pathlib import Path\nprint(Path('/dev/stdin').read_text())",
    "fileinput": "import fileinput\nprint([line for line in fileinput.input('/dev/stdin')])",
    "fileinput without a name": "import fileinput\nprint([line for line in fileinput.input()])",
    "open(0) twice": "print(open(0, closefd=False).readline(), end='')\nprint(len(open(0, closefd=False).read()) >= 0)",
    "numpy from /dev/stdin": "import numpy as np\nprint(np.loadtxt(open('/dev/stdin'), max_rows=1))",
    "__file__": "import os\nprint(os.path.basename(__file__), os.path.isabs(__file__), os.path.exists(__file__))",
    "a quine": "print(open(__file__).read(), end='')",
    "argv": "import sys\nprint(len(sys.argv), sys.argv[0].endswith('solution.py'), open(sys.argv[0]).readline()[:6])",
    "inspect its own source": "import inspect\ndef f(): return 5\nprint(inspect.getsource(f))",
    "home": "import os\nhome = os.environ['HOME']\nprint(os.path.expanduser('~/x') == home + '/x', os.path.isdir(home))",
    "Path.home": "from pathlib import Path\n(Path.home() / 'x').write_text('1')\nprint((Path.home() / 'x').read_text())",
    "environment with a default": "import os\nprint(os.environ.get('ONLINE_JUDGE'), os.getenv('DEBUG', 'no'))",
    "__builtins__": "__builtins__.answer = 42\nprint(answer, __builtins__.len('abc'))",
    "import __main__": "import __main__\nx = 5\nprint(__main__.x, __main__.__name__, __name__)",
    "globals": "print([n for n in globals() if not n.startswith('__')], __doc__, __spec__, __package__)",
    "annotations": "x: int = 3\nprint(__annotations__)",
    # ---- how it ends
    "exit": "print(1)\nexit()",
    "quit in a function": "def f(): quit()\nprint(1)\nf()",
    "sys.exit(0)": "import sys\nprint(1)\nsys.exit(0)",
    "sys.exit(None)": "import sys\nprint(1)\nsys.exit(None)",
    "sys.exit(False)": "import sys\nprint(1)\nsys.exit(False)",
    "sys.exit(True)": "import sys\nprint(1)\nsys.exit(True)",
    "sys.exit(256)": "import sys\nprint(1)\nsys.exit(256)",
    "sys.exit of a tuple": "import sys\nprint(1)\nsys.exit((1, 2))",
    "sys.exit of a text": "import sys\nprint(1)\nsys.exit('done')",
    "sys.exit(print())": "import sys\nsys.exit(print(1))",
    "os._exit after a flush": "import os\nprint(1, flush=True)\nos._exit(0)",
    "os._exit without a flush": "import os\nprint(1)\nos._exit(0)",
    "SystemExit caught": "try: exit(1)\nexcept SystemExit: print('caught')",
    "SystemExit in a thread": "import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start()\nt.join()\nprint(1)",
    "error in a thread": "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\nprint(1)",
    "threads that print after the end": "import threading, time\ndef f():\n    time.sleep(0.1)\n    print('late')\nthreading.Thread(target=f).start()\nprint('early')",
    "daemon thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('early')",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook')\n1 / 0",
    "excepthook that exits with 0": "import sys\nsys.excepthook = lambda *a: sys.exit(0)\nprint(1)\n1 / 0",
    "KeyboardInterrupt": "print(1)\nraise KeyboardInterrupt",
    "MemoryError in stderr": "import sys\nprint(1)\nprint('MemoryError', file=sys.stderr)",
    "MemoryError caught": "try: x = bytearray(1 << 50)\nexcept MemoryError: print('caught')",
    "recursion caught": "def f(n): return f(n + 1)\ntry: f(0)\nexcept RecursionError: print('caught')",
    "recursion limit": "import sys\nprint(sys.getrecursionlimit())",
    "end of file": "try:\n    while True: print(len(input()))\nexcept EOFError: print('eof')",
    "no import": "print(gcd(12, 18))",
    "a name of the usual imports, tried": "try: count += 1\nexcept NameError: count = 0\nprint(count)",
    # ---- threads and memory
    "stack of 1 GiB": "import sys, threading\nthreading.stack_size(1 << 30)\nsys.setrecursionlimit(10 ** 6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
                      "t = threading.Thread(target=lambda: print(f(100000)))\nt.start()\nt.join()",
    "stack of 512 MB by _thread": "import _thread, threading\n_thread.stack_size(1 << 29)\nt = threading.Thread(target=lambda: print(5))\nt.start()\nt.join()",
    "64 threads": "import threading\nb = threading.Barrier(64)\nr = []\ndef f(i):\n    x = [str(i)] * 20000\n    b.wait()\n    r.append(len(''.join(x)))\n"
                  "ts = [threading.Thread(target=f, args=(i,)) for i in range(64)]\n[t.start() for t in ts]\n[t.join() for t in ts]\nprint(sum(r))",
    "64 workers": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(64) as p: print(sum(p.map(lambda i: len([0] * 10000), range(640))))",
    "executor left open": "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(4)\np.submit(print, 'late')\n",
    "700 MB": "x = bytearray(700 << 20)\nprint(len(x))",
    "a deep structure": "x = None\nfor i in range(200000): x = [x]\nprint('end')",
    "a long linked list": "class N:\n    def __init__(s, n): s.n = n\nx = None\nfor i in range(200000): x = N(x)\nprint('end')",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0.01)\n    print(1)\nasyncio.run(main())",
    "asyncio task left": "import asyncio\nasync def late():\n    try: await asyncio.sleep(60)\n    finally: print('cancelled')\nasync def main():\n    t = asyncio.create_task(late())\n"
                         "    await asyncio.sleep(0)\nasyncio.run(main())",
    "signal handler": "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *a: print('signal'))\nos.kill(os.getpid(), signal.SIGUSR1)\nprint('end')",
    "temporary file": "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('x')\n    f.seek(0)\n    print(f.read())",
    "pickle of its own class": "import pickle\nclass A:\n    def __init__(self): self.x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
    "shelve": "import shelve\ns = shelve.open('db')\ns['a'] = 1\ns.close()\nprint(shelve.open('db')['a'])",
    "negative zero": "print(-0.0, [0.0, -0.0], '%g' % -0.0)",
    "surrogates": "print('\\ud83d'.encode('utf-8', 'surrogatepass'), '\\U0001F600')",
    "carriage returns": "print('a\\r\\nb\\rc')",
    "cookie": "# -*- coding: utf-8 -*-\nprint('\u00e9')",
    "print of a generator": "print(*(c for c in input()), sep='-')",
}


@pytest.fixture(scope="module", autouse=True)
def no_zygote_left():
    yield
    sandbox.close()


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_cpython(name, tmp_path):
    (tmp_path / "solution.py").write_text(PROGRAMS[name])
    real = subprocess.run([sys.executable, "-X", "utf8", str(tmp_path / "solution.py")], input=INPUT.encode(), cwd=tmp_path,
                          capture_output=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    ours = sandbox.run(PROGRAMS[name], INPUT)
    assert (ours.status, ours.stdout) == ("error" if real.returncode else "ok", real.stdout.decode()), (ours, real)
    # the verdict on a test is the same: only a program that printed this and left with 0 passes
    graded = sandbox.run_tests(PROGRAMS[name], {"inputs": [INPUT], "outputs": [real.stdout.decode()]}, timeout_s=20)
    assert [r.passed for r in graded] == [real.returncode == 0]


# ---------------------------------------------------------------------------------------------------- the caller's side
class Late(Exception):
    pass


@pytest.mark.slow
def test_an_exception_in_the_caller_does_not_shift_replies():
    """Whatever interrupts a call, the next one gets its own reply."""
    def ring(*_):
        raise Late
    old = signal.signal(signal.SIGALRM, ring)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(Late):
                sandbox.run("import time\ntime.sleep(2)\nprint('late')", timeout_s=5)
            assert sandbox.run("print('next')").stdout == "next\n"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert sandbox.run("print(1)", timeout_s=1e9).stdout == "1\n" and sandbox.run("print(2)").stdout == "2\n"


def test_results_keep_both_ends_of_long_texts():
    code = "print('begin')\nprint('\\U0001F600' + 'x' * 10 ** 6)\nprint('end')\nimport sys\nprint('y' * 10 ** 6, file=sys.stderr)"
    results = sandbox.run_tests(code, {"inputs": [""] * 3, "outputs": ["begin\n\U0001F600" + "x" * 10 ** 6 + "\nend\n"] * 3})
    assert [r.passed for r in results] == [True] * 3
    for result in results:
        assert result.stdout.startswith("begin\n") and result.stdout.endswith("end\n") and "characters" in result.stdout
        assert sys.getsizeof(result.stdout) + sys.getsizeof(result.stderr) < 100_000


def test_processes_are_counted():
    code = ("import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n            time.sleep(1)\n            os._exit(0)\n        n += 1\n"
            "except OSError: print(n)")
    for processes in (2, 4):
        assert sandbox.run(code, processes=processes).stdout == f"{processes - 1}\n"


INSTALLATION = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
import sandbox
look = "import os\\ntry: print(open({!r}).read())\\nexcept OSError as e: print(type(e).__name__)"
found = {"able": sandbox.capabilities(), "project": sandbox.run(look.format(sys.argv[2])).stdout,
         "library": sandbox.run("import plain_package\\nprint(plain_package.x)").stdout}
try:
    sandbox.run_tests("x = 1", {"pytest": "from solution import x\\ndef test_x(): assert x == 1"})
except ValueError as error:
    found["pytest"] = str(error)
print(json.dumps(found))
"""


def test_what_is_installed(tmp_path):
    """A private package and a missing pytest are reported, and an editable install does not bring the project into the sandbox."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "answers.json").write_text("the expected outputs")
    (packages / "editable.pth").write_text(str(tmp_path / "project"))
    for name in ("plain_package", "private_package"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("x = 5")
    (packages / "private_package").chmod(0o700)
    done = subprocess.run([tmp_path / "venv" / "bin" / "python", "-c", INSTALLATION, str(Path(sandbox.__file__).parent), str(tmp_path / "project" / "answers.json")],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["project"] == "FileNotFoundError\n" and found["library"] == "5\n"
    assert found["able"]["pytest"] is False and "pip install pytest" in found["pytest"]
    assert found["able"]["unreadable"] == ([str(packages / "private_package")] if os.getuid() == 0 else [])
