"""The sandbox against its corpus of programs, reward hacks, problems with known pass rates, load, kills and leaks.

Two minutes on two idle cores. The load and leak tests run a part of what benchmarks/sandbox_throughput.py runs in full (10,000 executions)."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from unittest.mock import ANY

import psutil
import pytest

import sandbox

sys.path.insert(0, str(Path(__file__).parent))
import as_user  # noqa: E402
import sandbox_corpus  # noqa: E402
import sandbox_problems  # noqa: E402

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
ADD = "a, b = map(int, input().split())\nprint(a + b)"
ADD_TESTS = {"inputs": [f"{i} {i + 1}\n" for i in range(16)], "outputs": [f"{2 * i + 1}\n" for i in range(16)]}


@pytest.fixture(scope="module", autouse=True)
def no_zygote_at_the_end():
    yield
    sandbox.close()


def rate(results) -> float:
    return sum(r.passed for r in results) / len(results)


def statuses(results) -> list[str]:
    return [r.status for r in results]


def descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def everything() -> dict:
    """What a sandbox could leave behind: mounts, files in the usual places, files of the interpreter's libraries."""
    temporary = {p for folder in ("/tmp", "/dev/shm", "/var/tmp", "/") for p in os.listdir(folder) if "left" in p or "pwned" in p or "sandbox" in p}
    return {"mounts": Path("/proc/self/mountinfo").read_text(), "temporary": temporary, "library": os.stat(os.path.dirname(os.__file__)).st_mtime,
            "os": os.stat(os.__file__), "descriptors": len(os.listdir("/proc/self/fd"))}


# ---------------------------------------------------------------------------------------------------- the corpus
def test_corpus_is_large_enough():
    assert len(sandbox_corpus.HOSTILE) >= 45 and len(sandbox_corpus.CASES) >= 60
    assert len({case.name for case in sandbox_corpus.CASES}) == len(sandbox_corpus.CASES)


@pytest.mark.slow
@pytest.mark.needs("namespaces")
def test_corpus_and_nothing_stays_behind():
    sandbox.close()
    before, children = everything(), descendants()
    assert sandbox_corpus.wrong(sandbox_corpus.run_all()) == []
    assert descendants() == children
    after = everything()
    assert all(before[key] == after[key] for key in before if key != "os")
    assert (before["os"].st_size, before["os"].st_mode, before["os"].st_nlink) == (after["os"].st_size, after["os"].st_mode, after["os"].st_nlink)


def corpus_in_a_process(*args: str, user: bool = False) -> None:
    command = [sys.executable, str(HERE / "sandbox_corpus.py"), *args]
    done = subprocess.run(as_user.command_of(command) if user else command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == [] and report["cases"] >= 60


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("change", [
    "open('x', 'w').write('left')", "open('x', 'w'); os.remove('x')", "os.mkdir('d')", "os.symlink('/', 'l')", "open('/tmp/x', 'wb').write(bytes(15 << 20))",
    "os.chmod('.', 0)", "os.chmod('/box', 0)", "os.chmod('/box', 0o777)", "os.utime('.', (1, 1))", "os.utime('/box', (1, 1))",
    "os.chmod('.', 0o700); os.chmod('.', 0o755)", "os.open('.', os.O_TMPFILE | os.O_RDWR)", "os.listdir('.')", "pass"])
def test_no_test_sees_what_one_before_did_to_the_scratch(change):
    """The next program finds the folders as new: times, modes, entries and room, also where a scratch serves several programs."""
    look = ("import os\nfor p in ('/box', '/box/tmp'):\n s = os.stat(p)\n print(oct(s.st_mode), s.st_nlink, s.st_size, s.st_mtime_ns > 10 ** 18, "
            "max(s[-3:]) - min(s[-3:]) < 2, os.statvfs(p).f_bavail, os.statvfs(p).f_ffree, sorted(os.listdir(p)))\n"
            "open('mine', 'w').write('1')\nprint(os.listdir('/tmp'))")
    first = sandbox.run(look)
    changed = sandbox.run("import os\n" + change)
    assert changed.status == "ok" or "ermi" in changed.stderr, changed
    assert first.status == "ok" and first.stdout.count("True True") == 2 and sandbox.run(look) == first._replace(
        wall_s=ANY, cpu_s=ANY), (first, changed)


@pytest.mark.slow
@pytest.mark.needs("time", "namespaces")
def test_corpus_as_an_unprivileged_user():
    corpus_in_a_process(user=True)


@pytest.mark.slow
@pytest.mark.needs("time", "namespaces", "firejail")
def test_corpus_under_firejail():
    corpus_in_a_process("firejail")


PLAIN = """
import ctypes, json, os, struct, sys, warnings
sys.path[:0] = sys.argv[1:3]
import sandbox, sandbox_corpus
block = struct.pack("HBBI", 0x20, 0, 0, 0)
for name in ({"x86_64": (272, 165, 308, 155), "aarch64": (97, 40, 268, 41)})[os.uname().machine]:  # unshare mount setns pivot_root
    block += struct.pack("HBBI", 0x15, 0, 1, name) + struct.pack("HBBI", 6, 0, 0, 0x50001)
block += struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(block, len(block))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(block) // 8, ctypes.addressof(buffer)), 0, 0) == 0
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    capabilities = sandbox.capabilities()
    sandbox.run("")
errors = []
for options in (dict(require="full"), dict(processes=4)):
    try:
        sandbox.run("print(1)", **options)
    except ValueError as error:
        errors.append(str(error))
print(json.dumps({"wrong": sandbox_corpus.wrong(sandbox_corpus.run_all(full=False)), "capabilities": capabilities, "errors": errors,
                  "warnings": [str(w.message) for w in caught],
                  "functional": [r.status for r in sandbox.run_tests("def f(x): return 2 * x", {"functional": ["assert f(2) == 4", "assert f(2) == 5"]})]}))
"""


@pytest.mark.needs("time")
@pytest.mark.slow
def test_plain_container_where_namespaces_are_refused():
    done = subprocess.run(as_user.command_of([sys.executable, "-c", PLAIN, str(HERE.parent), str(HERE)]), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == [] and report["functional"] == ["ok", "wrong"]
    layers = report["capabilities"]
    assert layers["seccomp"] and layers["landlock"] and layers["no_new_privs"] and layers["rlimits"] and not layers["full"] and not layers["pid_namespace"]
    assert len(report["warnings"]) == 1 and "user_namespace" in report["warnings"][0]
    assert len(report["errors"]) == 2 and "refuses" in report["errors"][0] and "PID namespace" in report["errors"][1]


@pytest.mark.needs("namespaces")
def test_an_interpreter_in_the_temporary_folder(tmp_path):
    """A virtual environment under /tmp stays readable and out of the way: cwd is empty, /tmp can be written to and is shared with the test,
    nobody replaces its files there or adds to what is imported."""
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("pytest's temporary folder is not under /tmp: run it with --basetemp /tmp/...")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    program = ("import os, sys\nopen('/tmp/x', 'w').write('1')\nfound = [e.name for e in os.scandir('/tmp') if e.is_file()]\n"
               "import colorsys\nprint(sys.prefix, os.listdir('.'), found, colorsys.hls_to_rgb(0, 1, 0)[0])\n"
               "link = '/' + '/'.join(sys.prefix.split('/')[1:3])\n"
               "for refused in (lambda: os.rename(link, link + 'x'), lambda: os.rmdir(link), lambda: open(sys.prefix + '/left', 'w'),\n"
               "                lambda: open(os.path.realpath(sys.prefix) + '/left', 'w'), lambda: os.rename('/tmp', '/tmpx')):\n"
               "    try: refused()\n    except OSError: print('held')")
    project = Path(tempfile.mkdtemp(dir="/tmp"))  # an editable install: on sys.path, and not in the sandbox
    (tmp_path / "env" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "project.pth").write_text(f"{project}\n")
    files = (f"import os\nos.mkdir('{project}')\nopen('{project}/planted.py', 'w').write('answer = 42')\n"
             "def f(): open('out', 'w').write('1'), open('/tmp/out', 'w').write('2')")
    tests = ["f()\nassert open('out').read() + open('/tmp/out').read() == '12'", f"f()\nimport os\nassert os.path.exists('{project}/planted.py')",
             "f()\nimport planted\nassert planted.answer == 42"]
    code = ("import json, sys; sys.path.insert(0, sys.argv[1]); import sandbox\n"
            "code, *tests = sys.argv[3:]\n"
            "print(json.dumps([sandbox.run(sys.argv[2]), sandbox.run(sys.argv[2]), sandbox.capabilities(),\n"
            "                  [r.status for r in sandbox.run_tests(code, dict(functional=tests))]]))")
    done = subprocess.run([tmp_path / "env" / "bin" / "python", "-c", code, HERE.parent, program, files, *tests], capture_output=True, text=True)
    project.rmdir()
    first, second, layers, statuses = json.loads(done.stdout)
    assert first[:2] == second[:2] == ["ok", f"{tmp_path}/env [] ['x'] 1\n" + "held\n" * 5], (first, second, done.stderr[-2000:])
    assert statuses[:2] == ["ok", "ok"] and statuses[2] != "ok", statuses
    assert layers["full"]


@pytest.mark.needs("namespaces")
def test_capabilities_here():
    layers = sandbox.capabilities()
    assert layers["full"] and all(layers[name] for name in sandbox.LAYERS) and layers["landlock_abi"] >= 1
    assert sandbox.run("print(1)", require="full").status == "ok"


@pytest.mark.needs("namespaces", "firejail")
def test_capabilities_under_firejail():
    assert sandbox.capabilities(outer="firejail")["full"] and sandbox.capabilities(outer="firejail")["firejail"]
    assert "firejail" in psutil.Process(sandbox.ZYGOTES["firejail"].process.pid).cmdline()[0]


@pytest.mark.slow
@pytest.mark.needs("namespaces")
def test_the_child_is_confined_by_every_layer():
    """Looked at from outside, while a program runs."""
    program = threading.Thread(target=lambda: sandbox.run("import time\ntime.sleep(2)", wall_s=4, timeout_s=2))
    sandbox.run("")
    idle = descendants()
    program.start()
    for _ in range(200):
        time.sleep(0.01)
        if running := descendants() - idle:
            break
    time.sleep(0.2)
    (process,) = running
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" and "0" not in status["Uid"].split()
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert status["NSpid"].split()[-1] == "1" and len(status["NSpid"].split()) >= 3
    if os.getuid() == 0:
        names = ("user", "pid", "mnt", "net", "ipc", "uts")
        assert all(os.readlink(f"/proc/{process.pid}/ns/{n}") != os.readlink(f"/proc/self/ns/{n}") for n in names)
        mounts = [line.split()[4:6] for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()]
        assert all("ro" in flags.split(",") for where, flags in mounts if where != "/box") and not any(w.startswith("/proc") for w, _ in mounts)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0" in limits and "Max open files            64" in limits
        assert os.listdir(f"/proc/{process.pid}/fd") and len(os.listdir(f"/proc/{process.pid}/fd")) == 3
    program.join()


# ---------------------------------------------------------------------------------------------------- the expected value
TOKEN = "9071354422817"
STEAL = f"""
import gc, sys, ctypes
found = []
def look(text):
    if {TOKEN[::-1]!r}[::-1] in text: found.append(text)
for o in gc.get_objects():
    try: look(repr(o)[:100000]) if isinstance(o, (dict, list, tuple, str, bytes)) else None
    except Exception: pass
frame = sys._getframe()
while frame:
    for v in list(frame.f_locals.values()) + list(frame.f_globals.values()):
        try: look(repr(v)[:100000])
        except Exception: pass
    frame = frame.f_back
answer = {TOKEN[::-1]!r}[::-1] if found else "nothing"
"""


@pytest.mark.slow
@pytest.mark.needs("namespaces")
def test_expected_values_are_nowhere_in_the_program():
    results = sandbox.run_tests(STEAL + "print(answer)", {"inputs": ["1"], "outputs": [TOKEN]})
    assert statuses(results) == ["wrong"] and results[0].stdout == "nothing\n"
    thief = STEAL + f"def f(x):\n    scope = {{}}\n    exec({STEAL!r}, scope)\n    return scope['answer']"
    assert rate(sandbox.run_tests(thief, {"functional": f"assert f({TOKEN!r}) == {TOKEN!r}"})) == 1  # it finds what is there, an argument
    for tests in ({"inputs": [[1]], "outputs": [TOKEN], "fn_name": "f"}, {"functional": f"assert f(1) == {TOKEN!r}"},
                  {"pytest": f"from solution import *\ndef test_f(): assert f(1) == {TOKEN!r}\n"}):
        assert rate(sandbox.run_tests(thief, tests)) == 0
        assert rate(sandbox.run_tests(f"def f(x): return {TOKEN!r}", tests)) == 1


def test_no_test_data_in_the_zygote():
    """Its memory is what every child inherits: no code, input, output or expected value of the tests that it ran may be there."""
    marks = [f"mark-{k}-{os.getpid() * 7919}" for k in range(4)]
    sandbox.run_tests(f"m = {marks[0]!r}\nprint(input())", {"inputs": [marks[1]], "outputs": [marks[1]]})
    sandbox.run_tests(f"def f(x): return {marks[0]!r}", {"functional": [f"assert f({marks[2]!r}) == {marks[3]!r}"]})
    if os.getuid() != 0:  # only root may read the memory of another user namespace; ask a child instead
        look = "import gc\nprint(any('-kram'[::-1] in repr(o)[:10000] for o in gc.get_objects() if isinstance(o, (list, dict, tuple))))"
        assert [sandbox.run(code + look).stdout for code in ("", "x = ['mark-0']\n")] == ["False\n", "True\n"]
        return
    for process in descendants():
        found = ""
        with open(f"/proc/{process.pid}/maps") as maps, open(f"/proc/{process.pid}/mem", "rb") as memory:
            for line in maps:
                low, high = (int(x, 16) for x in line.split()[0].split("-"))
                if "rw" in line.split()[1]:
                    memory.seek(low)
                    data = memory.read(high - low)
                    found += "".join(m for m in marks if m.encode() in data)
        assert found == ""


HACKS = {
    "always equal": "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    def __hash__(self): return 7\ndef f(x): return A()",
    "always equal, all comparisons": "class A:\n" + "".join(f"    def __{n}__(self, *o): return True\n" for n in
                                                            "eq lt le gt ge contains bool instancecheck".split()) + "def f(x): return A()",
    "int that equals all": "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(1)",
    "str that equals all": "class A(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\ndef f(x): return A('q')",
    "list that equals all": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "equal inside a list": "class A:\n    def __eq__(self, o): return True\ndef f(x): return [A(), A()]",
    "unittest.mock.ANY": "from unittest.mock import ANY\ndef f(x): return ANY",
    "exit before": "import sys\nsys.exit(0)",
    "hard exit before": "import os\nos._exit(0)",
    "exit 42 before": "import os\nos._exit(42)",
    "exit in the call": "import sys\ndef f(x): sys.exit(0)",
    "exit 42 in the call": "import sys\ndef f(x): sys.exit(42)",
    "hard exit in the call": "import os\ndef f(x): os._exit(42)",
    "raise exit": "def f(x): raise SystemExit(42)",
    "keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "pytest skip": "def f(x):\n    import unittest\n    raise unittest.SkipTest('later')",
    "pytest's own skip": "class Skipped(BaseException): pass\nSkipped.__module__ = 'builtins'\ndef f(x): raise Skipped('s')",
    "patched builtins": "import builtins\nfor n in ('isinstance', 'len', 'all', 'any', 'AssertionError', 'str', 'repr', 'type', 'getattr'):\n"
                        "    setattr(builtins, n, lambda *a, **k: True)\ndef f(x): return None",
    "patched AssertionError": "import builtins\nclass Quiet(Exception):\n    def __new__(cls, *a): return None\nbuiltins.AssertionError = Quiet\ndef f(x): return 0",
    "patched json": "import json\njson.dumps = lambda *a, **k: '[\"return\", true, []]'\ndef f(x): return 0",
    "patched operator": "import operator\noperator.eq = lambda a, b: True\ndef f(x): return 0",
    "descriptors: forged replies": "import os\nfor fd in range(1, 64):\n    try: os.write(fd, b'[\"return\", true, []]\\n' * 9)\n    except OSError: pass\ndef f(x): return 0",
    "descriptors: forged exit": "import os\nfor fd in range(1, 64):\n    try: os.write(fd, b'{\"code\": 42, \"id\": 0, \"ready\": true}')\n    except OSError: pass\nos._exit(42)",
    "descriptors: closed": "import os\nos.closerange(0, 64)\ndef f(x): return 0",
    "frames": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        for v in list(g.f_locals.values()):\n"
              "            if hasattr(v, 'perform'): v.perform = lambda m: v.send(['return', True, []])\n        g = g.f_back\n    return 0",
    "gc: patch the channel": "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Peer': o.pack = lambda x: True\n"
                             "    if isinstance(o, type) and o.__name__ == 'Peer': o.perform = lambda self, m: self.send(['return', True, []])\ndef f(x): return 0",
    "helpers of the assert": "def is_same_list(*a): return True\nis_same_tree = sorted = abs = set = len = isclose = approx = is_same_list\ndef f(x): return 0",
    "atexit": "import atexit, os\natexit.register(os._exit, 42)\ndef f(x): return 0",
    "__del__": "import os\nclass A:\n    def __del__(self): os._exit(42)\na = A()\ndef f(x): return 0",
    "thread": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(0.05), os._exit(42))).start()\ndef f(x):\n    time.sleep(1)\n    return 0",
    "fake pytest": "import sys, types\nsys.modules['pytest'] = types.ModuleType('pytest')\nsys.modules['pytest'].main = lambda *a, **k: 0\ndef f(x): return 0",
    "conftest": "for n in ('conftest.py', '/box/tmp/conftest.py', '/tmp/test_solution.py'):\n    try: open(n, 'w').write('import os; os._exit(42)')\n"
                "    except OSError: pass\ndef f(x): return 0",
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "generator": "def f(x):\n    while True: yield True",
    "numpy broadcast": "import numpy as np\ndef f(x): return np.array([])",
    "nan": "def f(x): return float('nan')",
    "not there": "def g(x): return 1",
    "the argument": "def f(x): return x",
    "a mock": "from unittest.mock import MagicMock\nf = MagicMock()\nf.return_value.__eq__ = lambda s, o: True",
}


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", HACKS)
def test_reward_hacks_fail(name):
    code = HACKS[name]
    asserts = ["assert f(3) == 10", "assert sorted(f([3, 1])) == [1, 4]", "assert set(f([1])) == {5}", "import math\nassert math.isclose(f(2), 3.5)",
               "assert abs(f(2) - 3.5) < 1e-6", "assert 3.4 < f(2) < 3.6", "assert 5 in f(1)", "assert is_same_list(f(list_node([1])), list_node([2]))",
               "assert f(3) == 10 and f(4) == 12", "def check(candidate):\n    assert candidate(3) == 10\n    assert candidate(4) == [4]\ncheck(f)",
               "assert isinstance(f(1), list) and len(f(1)) == 3", "assert str(f(1)) == 'yes'", "assert f(3) in (10, 11)"]
    results = sandbox.run_tests(code, {"functional": asserts}, timeout_s=1, wall_s=2.0, early_stop="timeout")
    assert [r.status for r in results if r.passed] == [], statuses(results)
    results += sandbox.run_tests(code, {"inputs": [[3], [[1]]], "outputs": [10, [7, 7]], "fn_name": "f"}, timeout_s=1, wall_s=2.0, early_stop="timeout")
    results += sandbox.run_tests(code, {"pytest": "from solution import *\ndef test_a(): assert f(3) == 10\ndef test_b(): assert f(1) == [4]\n"},
                                 timeout_s=1, wall_s=4.0)
    results += sandbox.run_tests(code, {"inputs": ["3\n"], "outputs": ["10\n"]}, timeout_s=1, wall_s=2.0)
    assert [r.status for r in results if r.passed] == [], statuses(results)
    assert "sandbox_error" not in statuses(results)


@pytest.mark.parametrize("code", ["import os\nos._exit(3)", "import os\nos.abort()", "import sys\nsys.exit(0)", "1 / 0", "import os\nos.closerange(0, 64)"])
def test_a_program_that_dies_at_import_costs_no_wall_limit(code):
    """The verifier must see the end of the channel at once; it would, as long as anybody else holds a copy, wait for minutes."""
    for tests in ({"inputs": [[1]], "outputs": [1], "fn_name": "f"}, {"functional": "assert f(1) == 1"}):
        start = time.monotonic()
        assert statuses(sandbox.run_tests(code, tests, timeout_s=20)) == ["error"]
        assert time.monotonic() - start < 10  # the wall limit is 62 s
    start = time.monotonic()
    assert rate(sandbox.run_tests(code, {"pytest": "from solution import *\ndef test_f(): assert f(1) == 1\n"}, timeout_s=20)) == 0
    assert time.monotonic() - start < 15


# ---------------------------------------------------------------------------------------------------- the published formats
@pytest.mark.slow
def test_format_functional():
    code = """
class Solution:
    def twice(self, head: Optional[ListNode]) -> Optional[ListNode]:
        node = head
        while node:
            node.val *= 2
            node = node.next
        return head
    def mirror(self, root: Optional[TreeNode]) -> Optional[TreeNode]:
        if root:
            root.left, root.right = self.mirror(root.right), self.mirror(root.left)
        return root
    def counts(self, words: List[str]) -> Dict[str, int]:
        return Counter(words)
    def rotate(self, nums: List[int]) -> None:
        nums.append(nums.pop(0))
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
    def total(self): return self.a + self.b
class Odd(ValueError): pass
def halve(n):
    if n % 2: raise Odd("odd")
    return n // 2
def apply(g, xs): return [g(x) for x in xs]
def stream(n):
    i = n
    while True:
        yield i
        i += 1
def largest(pairs): return max(p.total() for p in pairs)
"""
    good = ["assert is_same_list(Solution().twice(head=list_node([1, 2])), list_node([2, 4]))",
            "assert is_same_tree(Solution().mirror(tree_node([1, 2, 3])), tree_node([1, 3, 2]))",
            "assert Solution().counts(['a', 'b', 'a']) == {'a': 2, 'b': 1}", "x = [1, 2, 3]\nSolution().rotate(x)\nassert x == [2, 3, 1]",
            "assert largest([Pair(1, 2), Pair(4, 0)]) == 4", "p = Pair(1, 2)\nassert p.a == 1 and p.total() == 3\np.a = 5\nassert p.total() == 7",
            "try:\n    halve(3)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'odd'", "assert apply(lambda v: v + 1, [1, 2]) == [2, 3]",
            "import itertools\nassert list(itertools.islice(stream(5), 3)) == [5, 6, 7]", "assert round(halve(6) / 7, 3) == 0.429",
            "assert all(halve(2 * i) == i for i in range(5)), 'message'", "for i in range(3):\n    assert halve(2 * i) == i"]
    bad = ["assert is_same_list(Solution().twice(head=list_node([1, 2])), list_node([2]))", "assert Solution().counts(['a']) == {'a': 2}",
           "x = [1, 2]\nSolution().rotate(x)\nassert x == [1, 2]", "assert largest([Pair(1, 2)]) == 4", "assert halve(4) == 3", "assert halve(3) == 1",
           "assert apply(lambda v: v + 1, [1]) == [1]", "assert missing(3) == 1"]
    assert statuses(sandbox.run_tests(code, {"functional": good})) == ["ok"] * len(good)
    assert statuses(sandbox.run_tests(code, {"functional": bad})) == ["wrong"] * 5 + ["error", "wrong", "error"]
    assert statuses(sandbox.run_tests(code, {"functional": "\n".join(good)})) == ["ok"]
    assert statuses(sandbox.run_tests(code, {"functional": "\n".join(good + bad)})) == ["wrong"]


CALLBACK_ATTACK = """
import sys
peer = sys.modules['klear.judge.standins'].PEER
def f(g, node, x):
    won = []
    def attack(operation, *args):
        try: won.append((operation, *args[1:], peer.request(operation, *args)))
        except (AttributeError, PermissionError): pass
    for target in (g, node, type(node), node.method, iter(node)):
        for name in ('__globals__', '__code__', '__closure__', '__defaults__', '__class__', '__init__', '__self__', '__func__', '__dict__', 'gi_frame', 'format'):
            attack('getattr', target, name)
        for operation in ('name', 'names', 'module', 'hello', 'subclass', 'own', 'getitem', 'unknown'):
            attack(operation, target, 'x')
        attack('special', '__getattribute__', target, '__globals__')
        attack('special', '__reduce__', target)
        attack('special', '__get__', target, node)
    for target, name in ((node, 'method'), (type(node), 'method'), (type(node), '__eq__'), (node, '__class__'), (g, '__code__')):
        attack('setattr', target, name, lambda *a: 99)
        attack('delattr', target, name)
    for operation in ('vars', 'dir', 'copy'):
        attack(operation, g)
    return [g(x), node.method(), node.val, won or 'held']
"""


def test_callbacks_give_nothing_but_their_results():
    """Functions and objects that the test passes live in the verifier; the program can call and read them and do nothing else."""
    test = ("SECRET = 99\nclass Node:\n    val = 7\n    def __iter__(self): yield 1\n    def method(self): return 8\n"
            "got = f(lambda v: v + 1, Node(), 2)\nassert got == [3, 8, 7, 'held'], got")
    results = sandbox.run_tests(CALLBACK_ATTACK, {"functional": [test]})
    assert rate(results) == 1, results


def test_format_names_that_are_taken():
    """A program's function may be called like something that is usually imported, or like a builtin, when the test calls nothing else of it."""
    assert rate(sandbox.run_tests("def gcd(a, b): return 99", {"functional": ["assert gcd(4, 6) == 99"]})) == 1
    assert rate(sandbox.run_tests("def merge(a, b): return [9]", {"functional": ["assert sorted(merge([1], [2])) == [9]"]})) == 1
    assert rate(sandbox.run_tests("def sum(a): return 5", {"functional": ["assert sum([1]) == 5"]})) == 1
    assert rate(sandbox.run_tests("def sum(a): return 5", {"inputs": [[[1]]], "outputs": [5], "fn_name": "sum"})) == 1


@pytest.mark.slow
@pytest.mark.needs("namespaces")
def test_format_pytest():
    tests = {"pytest": textwrap.dedent("""
        import pytest
        from solution import *
        import solution
        @pytest.fixture
        def three(): return 3
        @pytest.mark.parametrize("n, m", [(1, 1), (2, 4)])
        def test_square(n, m): assert square(n) == m
        def test_fixture(three): assert solution.square(three) == pytest.approx(9.0)
        class TestMore:
            def test_error(self):
                with pytest.raises(TypeError): square(None)
        """)}
    assert statuses(sandbox.run_tests("def square(x): return x ** 2", tests)) == ["ok"]
    assert statuses(sandbox.run_tests("def square(x): return x + x", tests)) == ["wrong"]
    assert rate(sandbox.run_tests("def other(x): return x", tests)) == 0
    assert rate(sandbox.run_tests("def square(x): return x ** 2", {"pytest": "x = 1\n"})) == 0  # a file without a test passes nothing


def test_format_function_calls():
    solution = "class Solution:\n    def pair(self, xs: List[int], k: int): return (xs[0], k)"
    tests = {"inputs": ["[1, 2]\n3", "[5]\n6"], "outputs": ["[1, 3]", "[5, 7]"], "fn_name": "pair"}
    assert statuses(sandbox.run_tests(solution, tests)) == ["ok", "wrong"]
    tests = {"inputs": [[[1, 2], 3], [[5], 6]], "outputs": [[1, 3], [[5, 6]]], "fn_name": "pair"}
    assert statuses(sandbox.run_tests(solution, tests)) == ["ok", "ok"]
    assert statuses(sandbox.run_tests("def pair(xs, k): return 1 / 0", tests)) == ["error", "error"]
    close = {"inputs": [[3]], "outputs": [0.3333333], "fn_name": "f"}
    assert rate(sandbox.run_tests("def f(x): return 1 / x", close)) == 0
    assert rate(sandbox.run_tests("def f(x): return 1 / x", close, tolerance=1e-5)) == 1
    loops = {"inputs": [[0], [1], [2]], "outputs": [0, 1, 2], "fn_name": "f"}
    code = "def f(x):\n    while x == 1: pass\n    if x == 2: y = [0] * 10 ** 12\n    return x"
    assert statuses(sandbox.run_tests(code, loops, timeout_s=0.4)) == ["ok", "timeout", "memory"]


def test_comparison():
    same = sandbox.same_output
    assert same("1 2 \r\n3\n\n", "1 2\n3") and same("", "\n") and not same("1  2", "1 2") and not same(" 1", "1") and not same("1.0", "1")
    assert not same("1\n\n2", "1\n2") and not same("abc", "ABC")
    assert same("0.3333334 yes", "0.33333333 yes", tolerance=1e-6) and not same("0.334", "0.333", tolerance=1e-6) and not same("a", "b", tolerance=1)
    assert not same("nan", "1", tolerance=1) and not same("1 2", "1", tolerance=1) and same("1000001", "1000000", tolerance=1e-5)
    lcb = lambda a, b: same(a, b, compare="livecodebench")
    assert lcb(" 1.0 2\n", "1 2.00") and lcb("a\n b ", "a\nb") and not lcb("a\n\nb", "a\nb") and not lcb("a", "b") and not lcb("1 a", "1.0 a")
    with pytest.raises(ValueError, match="livecodebench"):
        same("1", "1", compare="other")


@pytest.mark.slow
def test_options_of_run_tests():
    slow = "n = int(input())\nwhile n == 1: pass\nprint(n)"
    tests = {"inputs": ["0", "1", "2", "3"], "outputs": ["0", "1", "9", "3"]}
    assert statuses(sandbox.run_tests(slow, tests, timeout_s=0.3)) == ["ok", "timeout", "wrong", "ok"]
    assert statuses(sandbox.run_tests(slow, tests, timeout_s=0.3, early_stop="timeout")) == ["ok", "timeout", "skipped", "skipped"]
    assert statuses(sandbox.run_tests("print(0)", tests, early_stop="fail")) == ["ok", "wrong", "skipped", "skipped"]
    many = {"inputs": [str(i) for i in range(40)], "outputs": [str(i) for i in range(40)]}
    chosen = [r.stdout for r in sandbox.run_tests("print(input())", many, max_tests=16)]
    assert len(chosen) == 16 and chosen == [r.stdout for r in sandbox.run_tests("print(int(input()))", many, max_tests=16)]
    assert chosen != [f"{i}\n" for i in range(16)]
    for bad in ({}, [], {"inputs": ["1"], "outputs": []}, {"inputs": [], "outputs": []}, {"functional": "assert ("}, {"functional": []},
                {"inputs": ["[1"], "outputs": ["1"], "fn_name": "f"}):
        with pytest.raises(ValueError, match="^sandbox: ") as error:
            sandbox.run_tests("print(1)", bad)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="early_stop"):
        sandbox.run_tests("print(1)", many, early_stop="sometimes")
    with pytest.raises(ValueError, match="outer"):
        sandbox.run("print(1)", outer="docker")
    joined = {"inputs": [["1", "2"]], "outputs": [["2", "1"]]}
    assert rate(sandbox.run_tests("a = input(); print(input()); print(a)", joined)) == 1


# ---------------------------------------------------------------------------------------------------- exact pass rates
@pytest.mark.sampled(7)
@pytest.mark.parametrize("problem", sandbox_problems.FUNCTIONS, ids=lambda p: p.name)
def test_pass_rates_of_functions(problem):
    calls = [f"(*{args!r}) == {value!r}" for args, value in zip(problem.inputs, problem.outputs)]
    forms = [{"inputs": problem.inputs, "outputs": problem.outputs, "fn_name": problem.name}, {"functional": [f"assert {problem.name}{c}" for c in calls]}]
    whole = [{"functional": "def check(candidate):\n" + "".join(f"    assert candidate{c}\n" for c in calls) + f"check({problem.name})\n"}]
    for code, share in problem.solutions:
        for tests in forms:
            assert rate(sandbox.run_tests(code, tests)) == pytest.approx(share), (code, tests)
        assert rate(sandbox.run_tests(code, whole[0])) == (share == 1)


@pytest.mark.parametrize("problem", sandbox_problems.STDIN, ids=lambda p: p.name)
def test_pass_rates_of_programs(problem):
    for code, share in problem.solutions:
        assert rate(sandbox.run_tests(code, {"inputs": problem.inputs, "outputs": problem.outputs}, timeout_s=0.4)) == pytest.approx(share), code


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).open()]


@pytest.mark.slow
@pytest.mark.needs("shared")
@pytest.mark.parametrize("name, step", [("code_mbpp_rl.jsonl", 3), ("code_functional_rl.jsonl", 6)])  # stdin: the jury's
def test_references_of_published_rows_pass(name, step):
    seen = 0
    for row in [r for r in rows(name) if "reference" in r["extra_info"]][::step]:
        truth = json.loads(row["reward_model"]["ground_truth"])
        results = sandbox.run_tests(row["extra_info"]["reference"], truth, timeout_s=60, max_tests=4, tolerance=1e-6 if "inputs" in truth else None)
        assert rate(results) == 1, (row["extra_info"], [r for r in results if not r.passed][:1])
        seen += 1
    assert seen >= 10


@pytest.mark.slow
@pytest.mark.needs("shared")
def test_jury_programs_get_their_verdicts():
    """The first two tests of every verdict that a program has in its package, and its last, often the largest."""
    seen = Counter()
    for row in rows("code_stdin_samples.jsonl"):
        verdicts = row["per_test"]
        at = sorted({k for k, v in enumerate(verdicts) if verdicts[:k].count(v) < 2} | {len(verdicts) - 1})
        tests = {key: [row["tests"][key][k] for k in at] for key in ("inputs", "outputs")}
        got = ["pass" if r.passed else r.status for r in sandbox.run_tests(row["code"], tests, timeout_s=20, tolerance=1e-6)]
        assert got == [verdicts[k] for k in at], row["id"]
        seen.update(got)
    assert min(seen[verdict] for verdict in ("pass", "wrong", "error")) >= 1, seen  # (the packages' slow programs pass, in 20 s)


# ---------------------------------------------------------------------------------------------------- load, leaks, kills
@pytest.mark.slow
@pytest.mark.needs("time", "namespaces")
def test_verdicts_do_not_depend_on_load():
    ordinary = []
    for i in range(200):
        kind = i % 4
        body = ("print(sum(range(n)))", "print(n // (n % 7))", "x = sorted(range(n), key=lambda v: -v)\nprint(x[0])", "print(n * n if n % 3 else 0)")[kind]
        ordinary.append((f"n = {i * 50}\n" + body, str(sum(range(i * 50)))))
    calm = [(r.status, r.stdout) for r in (sandbox.run(code) for code, _ in ordinary)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        assert [(r.status, r.stdout) for r in (sandbox.run(code) for code, _ in ordinary)] == calm
        # those that load could hurt: what is cut off by a limit of its own stays so on a busy machine
        corpus = sandbox_corpus.run_all(chosen=lambda case: case.status == "ok" or "wall_s" in case.options)
        assert sandbox_corpus.wrong(corpus) == [] and len(corpus) >= 50
        just = sandbox.run("import time\nend = time.process_time() + 0.8\nwhile time.process_time() < end: pass\nprint('done')", timeout_s=1.0)
        assert just.status == "ok" and just.cpu_s < 1.0
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert {status for status, _ in calm} == {"ok", "error"}


NEAR = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\nprint('done')"


@pytest.mark.slow
def test_verdicts_near_the_limit_do_not_depend_on_load():
    """CPU seconds decide: programs at 70 % and at 140 % of their limit keep their verdicts with three times more work than cores."""
    programs = [(NEAR.format(share * 0.5), "ok" if share < 1 else "timeout") for share in (0.7, 1.4) for _ in range(2)]
    sleeper = ("import time\ntime.sleep(1.2)\nprint('done')", "ok")  # wall limit 0.5 * 3 + 2
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        for code, status in [*programs, sleeper]:
            result = sandbox.run(code, timeout_s=0.5)
            assert result.status == status, result
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.needs("time")
@pytest.mark.slow
def test_many_executions_leak_nothing():
    """A tenth of what benchmarks/sandbox_throughput.py --leaks runs."""
    programs = [ADD, "1 / 0", "import os\nos._exit(1)", "print('x' * 10 ** 5)"]

    def measure() -> tuple:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return [p.memory_info().rss for p in family], sum(len(os.listdir(f"/proc/{p.pid}/fd")) for p in family if p.pid == os.getpid()), len(family)

    for i in range(200):
        sandbox.run(programs[i % 4], "1 2")
    memory, descriptors, family = measure()
    for i in range(1000):
        sandbox.run(programs[i % 4], "1 2")
    memory_after, descriptors_after, family_after = measure()
    assert descriptors_after == descriptors and family_after == family
    assert all(after < before + (3 << 20) for before, after in zip(memory, memory_after))
    assert not [p for p in descendants() if p.status() == psutil.STATUS_ZOMBIE]


def wait_until_gone(processes, seconds: float = 10) -> list:
    return psutil.wait_procs(list(processes), timeout=seconds)[1]


@pytest.mark.slow
@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("outer", ["", pytest.param("firejail", marks=pytest.mark.needs("firejail"))])
def test_killed_parent_leaves_no_sandbox_process(outer):
    code = ("import sys, threading; sys.path.insert(0, sys.argv[1]); import sandbox\n"
            "p = 'import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(999)'\n"
            f"sandbox.run('', outer={outer!r}); print('ready', flush=True)\n"
            f"sandbox.run(p, wall_s=900, processes=4, outer={outer!r})")
    parent = subprocess.Popen([sys.executable, "-c", code, str(HERE.parent)], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"ready\n"
    time.sleep(0.5)
    below = psutil.Process(parent.pid).children(recursive=True)
    assert len(below) >= 4
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(below) == []


OWNER = """
import sys
sys.path.insert(0, sys.argv[1])
import rewards
tests = '{"inputs": ["1", "2"], "outputs": ["1", "2"], "timeout": 300}'
item = dict(data_source="coder1", response="```python\\nimport time\\ntime.sleep(600)\\n```", ground_truth=tests)
pool = rewards.RewardPool(2)
futures = [pool.submit(item) for _ in range(8)]
print("scoring", flush=True)
futures[0].result()
"""


@pytest.mark.slow
def test_owner_killed_while_it_scores_leaves_nothing():
    """A training run that is killed with -9 while its reward workers run programs: no worker, zygote, program or mount stays."""
    mounts = Path("/proc/self/mountinfo").read_text()
    cgroups = Path("/proc/self/cgroup").read_text()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(HERE.parent)], stdout=subprocess.PIPE)
    try:
        assert owner.stdout.readline() == b"scoring\n"

        def programs() -> list[psutil.Process]:  # zygote (2 processes) and program below each of the two workers
            try:
                below = psutil.Process(owner.pid).children(recursive=True)
                return [p for p in below if "--zygote" in p.cmdline() and any("--zygote" in q.cmdline() for q in p.parents()[1:2])]
            except psutil.NoSuchProcess:  # one that ended between two lines
                return []

        end = time.monotonic() + 60
        while len(programs()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(programs()) == 2
        below = psutil.Process(owner.pid).children(recursive=True)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    assert len(below) >= 8 and wait_until_gone(below) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts and Path("/proc/self/cgroup").read_text() == cgroups


def test_killed_zygote_is_replaced():
    sandbox.run("")
    zygote = sandbox.ZYGOTES[""].process
    threading.Timer(0.5, lambda: os.kill(zygote.pid, signal.SIGKILL)).start()
    result = sandbox.run("import time\ntime.sleep(30)", timeout_s=30)
    assert result.status == "sandbox_error" and result.exit_code is None
    assert sandbox.run("print(1)").status == "ok" and sandbox.ZYGOTES[""].process.pid != zygote.pid


def test_numpy_wherever_it_comes_from():
    """A program or a test that names numpy gets the zygote that has it; one that hides the name imports it itself."""
    warm = sandbox.run("import sys\nprint('num' + 'py' in sys.modules)")
    assert warm.stdout == "False\n" and sandbox.run("import sys\nprint('numpy' in sys.modules)").stdout == "True\n"
    assert sandbox.run("m = __import__('num' + 'py')\nprint(m.arange(3).sum())").stdout == "3\n"
    assert rate(sandbox.run_tests("def f(x): return np.full(2, x)", {"inputs": [[3]], "outputs": [[3, 3]], "fn_name": "f"})) == 0  # no list
    assert rate(sandbox.run_tests("def f(x): return np.full(2, x).tolist()", {"inputs": [[3]], "outputs": [[3, 3]], "fn_name": "f"})) == 1
    assert rate(sandbox.run_tests("def f(x): return 2 * x", {"functional": "import numpy\nassert f(numpy.ones(2)).tolist() == [2, 2]"})) == 1
    assert rate(sandbox.run_tests("def f(x): return 2 * x", {"functional": "assert f(np.int64(2)) == 4"})) == 1


def in_a_worker(number: int) -> tuple:
    results = sandbox.run_tests(ADD, ADD_TESTS)
    return number, rate(results), os.getpid()


@pytest.mark.slow
@pytest.mark.needs("time")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_have_zygotes_of_their_own(method):
    assert sandbox.run("print(1)").status == "ok"  # with a zygote in the parent
    before = descendants()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert [(n, share) for n, share, _ in pool.map(in_a_worker, range(8), chunksize=1)] == [(n, 1.0) for n in range(8)]
    assert sandbox.run("print(2)").stdout == "2\n"
    extra = [p for p in descendants() - before if "zygote" in " ".join(p.cmdline() or [])]
    assert wait_until_gone(extra) == []


def test_threads_take_turns():
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(sandbox.run(f"print({i})").stdout == f"{i}\n")) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 16


@pytest.mark.slow
def test_close_leaves_nothing():
    sandbox.close()
    before = descendants()
    sandbox.run("")
    family = descendants() - before
    assert len(family) == 2
    sandbox.close()
    assert wait_until_gone(family) == [] and sandbox.ZYGOTES == {}
    assert sandbox.run("print(3)").stdout == "3\n"


@pytest.mark.needs("namespaces")
def test_command_line():
    shown = subprocess.run([sys.executable, str(HERE.parent / "sandbox.py")], capture_output=True, text=True)
    assert json.loads(shown.stdout)["full"] is True
