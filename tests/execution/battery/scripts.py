"""Scripts: how they read, print, compile and end."""

from tests.execution.battery.cases import COMPILE, RUNTIME, WRONG, script

FAST_IO = """import os, sys
from io import BytesIO, IOBase

class FastIO(IOBase):
    newlines = 0

    def __init__(self, file):
        self._fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.write = self.buffer.write if self.writable else None

    def readline(self):
        while self.newlines == 0:
            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
            self.newlines = b.count(b"\\n") + (not b)
            ptr = self.buffer.tell()
            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
        self.newlines -= 1
        return self.buffer.readline()

    def flush(self):
        if self.writable:
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)

class IOWrapper(IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush = self.buffer.flush
        self.writable = self.buffer.writable
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
        self.readline = lambda: self.buffer.readline().decode("ascii")

sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip("\\r\\n")
print(int(input()) + int(input()))
"""

SOURCES = (
    script("byte order mark", "a file may begin with it", "\ufeffprint(3)\n"),
    script("byte order mark twice", "only one is a mark", "\ufeff\ufeffx", COMPILE),
    script("form feed", "white space between lines", "\x0cx = 3\n\x0c\nprint(x)\n"),
    script("old line ends", "\\r ends a line", "x = 3\rif x:\r    print(x)\r"),
    script("tabs", "one tab is one level", "if 1:\n\tif 1:\n\t\tprint(3)\n"),
    script("tabs and spaces", "TabError", "if 1:\n\tx = 1\n        y = 2\n", COMPILE),
    script("other spaces", "a no-break space is no white space", "x =\xa03", COMPILE),
    script("markdown fence", "no Python", "```python\nprint(3)\n```\n", COMPILE),
    script("curved quotes", "no Python", "print(“3”)\n", COMPILE),
    script("Python 2", "no Python 3", "print 3\n", COMPILE),
    script("braces", "not a chance", "from __future__ import braces\n", COMPILE),
    script("late future", "must come first", "x = 1\nfrom __future__ import division\n", COMPILE),
    script("future first", "it stays first", "# c\nfrom __future__ import division\nprint(3)\n"),
    script("bad escape", "a warning is no error", "print(len('\\d') + 1)\n"),
    script("literal of 5000 digits", "the compiler's own limit", f"x = {'9' * 5000}", COMPILE),
    script("deep indentation", "CPython allows 100 levels",
           "\n".join(" " * i + "if 1:" for i in range(101)) + "\n" + " " * 101 + "x", COMPILE),
    script("long line", "columns beyond 16 bits", "x = [" + "1," * 200_000 + "]\nprint(3)"),
    script("other letters", "names are normalised", "ｘ = 3\nprint(x)\n"),
    script("walrus and match", "3.11 has both",
           "if (n := 3) > 2:\n    match [n, 4]:\n        case [a, *_]: print(a)\n"),
    script("exception groups", "3.11 has them",
           "try: raise ExceptionGroup('', [ValueError()])\nexcept* ValueError: print(3)\n"),
    script("empty file", "prints nothing, as asked", "", expected=""),
    script("comments alone", "prints nothing, but 3 is due", "# print(3)\n", WRONG),
)  # fmt: skip

READING = (
    script("fast input class", "as contest templates have it", FAST_IO, given="1\n2\n"),
    script("the device", "a name of descriptor 0",
           "import sys\nsys.stdin = open('/dev/stdin')\nprint(input())\n", given="3\n"),
    script("mapped input", "redirected input is a file",
           "import mmap\nprint(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].decode())\n", given="3"),
    script("fileinput", "reads standard input",
           "import fileinput\nprint(sum(map(int, fileinput.input())))\n", given="1\n2"),
    script("iter to the end", "an empty line stops it",
           "print(sum(map(int, iter(input, ''))))\n", given="1\n2\n\n9\n"),
    script("seek", "redirected input can be read twice",
           "import sys\nsys.stdin.read()\nsys.stdin.seek(0)\nprint(input())\n", given="3\n"),
    script("carriage return kept", "no translation of stdin on Linux",
           "print(len(input()))\n", given="ab\r\n"),
    script("carriage return inside", "it ends no line", "print(len(input()))", given="a\rb\n"),
    script("too few lines", "EOFError", "input()\nprint(input())", RUNTIME, "3\n",
           error="EOFError"),
    script("no last newline", "the line is whole", "input()\nprint(input())", given="1\n3"),
    script("input as a variable", "a name like others",
           "input = input().split()\nprint(len(input))\n", given="a b c\n"),
    script("prompt", "goes to standard output", "print(input('n? '))", WRONG, "3\n"),
    script("missing file", "FileNotFoundError, caught",
           "import sys\ntry: sys.stdin = open('input.txt')\nexcept FileNotFoundError: pass\n"
           "print(input())\n", given="3\n"),
    script("own path", "scripts have __file__",
           "import os, sys\nprint(os.path.basename(__file__) == os.path.basename(sys.argv[0]))",
           expected="True\n"),
    script("names of the streams", "as CPython has them",
           "import sys\nfor s in sys.stdin, sys.stdout, sys.stderr: print(s.name, s.mode)\n",
           expected="<stdin> r\n<stdout> w\n<stderr> w\n"),
    script("no arguments", "IndexError", "import sys\nprint(sys.argv[1])", RUNTIME,
           error="IndexError"),
    script("nul in input", "a character like others", "print(len(input()))", given="a\0b\n"),
)  # fmt: skip

PRINTING = (
    script("stdout closed after", "what was printed is out",
           "import sys\nprint(3)\nsys.stdout.close()\n"),
    script("stdout closed before", "ValueError", "import sys\nsys.stdout.close()\nprint(3)",
           RUNTIME, error="ValueError"),
    script("stdout gone", "CPython flushes it all the same",
           "import sys\nprint(3)\nsys.stdout = None\n"),
    script("stdout deleted", "CPython flushes it all the same",
           "import sys\nprint(3)\ndel sys.stdout\n"),
    script("stdout replaced after", "what was printed is out",
           "import io, sys\nprint(3)\nsys.stdout = io.StringIO()\nprint(4)\n"),
    script("stdout replaced before", "nothing was printed",
           "import io, sys\nsys.stdout = io.StringIO()\nprint(3)\n", WRONG),
    script("stdout wrapped anew", "a common idiom", "import io, sys\n"
           "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'utf-8')\nprint(3)\n"),
    script("stdout detached", "CPython exits with 120",
           "import sys\nsys.stdout.detach().write(b'3')\n", RUNTIME),
    script("stdout into stderr", "it is not standard output",
           "import os\nos.dup2(2, 1)\nprint(3)\n", WRONG),
    script("other encoding", "the bytes differ",
           "import sys\nsys.stdout.reconfigure(encoding='utf-16')\nprint(3)\n", WRONG),
    script("lone surrogate", "UnicodeEncodeError", "print('\\ud800')", RUNTIME,
           error="UnicodeEncodeError"),
    script("no text", "a byte that is no character",
           "import sys\nsys.stdout.buffer.write(b'3\\xff\\n')\n", WRONG),
    script("long warnings", "stderr is nobody's answer",
           "import sys\nsys.stderr.write('w' * 10**6)\nprint(3)\n"),
    script("written over", "the file holds the answer alone",
           "import os\nos.write(1, b'4')\nos.lseek(1, 0, 0)\nprint(3)\n"),
    script("nul", "a character like others", "print('a\\0b')", expected="a\0b\n"),
    script("exponent", "1000.0 is 1e3", "print(1e3)", expected="1e3\n"),
    script("minus zero, a float", "close to 0.0", "print(-0.0)", expected="0.0\n"),
    script("minus zero, an int", "ints are texts", "print('-0')", WRONG, expected="0\n"),
    script("leading zeros", "ints are texts", "print('003')", WRONG),
    script("float for an int", "ints are exact", "print(3.0)", WRONG),
    script("rounded big int", "ints are exact", "print(int(float(2**60 + 1)))", WRONG,
           expected=f"{2**60 + 1}\n"),
    script("bool for an int", "texts differ", "print(True)", WRONG, expected="1\n"),
    script("not a number", "near nothing", "print(float('nan'))", WRONG, expected="0.5\n"),
    script("blank line first", "lines count", "print('\\n3')", WRONG),
    script("None for nothing", "a word more", "print(None)", WRONG, expected=""),
    script("blank lines for nothing", "they do not count", "print('\\n')", expected=""),
    script("5001 digits", "CPython's limit", "print(10**5000)", RUNTIME, error="ValueError"),
)  # fmt: skip

ENDING = (
    script("raise SystemExit", "status 0", "print(3)\nraise SystemExit\n"),
    script("exit(False)", "status 0", "print(3)\nexit(False)\n"),
    script("exit(256)", "a status has 8 bits", "print(3)\nexit(256)\n"),
    script("exit(True)", "status 1", "print(3)\nexit(True)\n", RUNTIME, error="SystemExit"),
    script("exit with a text", "status 1", "import sys\nprint(3)\nsys.exit('done')\n", RUNTIME),
    script("exit in a thread", "ends the thread alone",
           "import sys, threading\nthreading.Thread(target=sys.exit, args=(1,)).start()\nprint(3)"),
    script("bare except", "catches SystemExit", "try: exit(1)\nexcept: print(3)\n"),
    script("flushed, then left", "the answer is out",
           "import os\nprint(3, flush=True)\nos._exit(0)\n"),
    script("error in a thread", "the main thread decides",
           "import threading\nx = threading.Thread(target=lambda: 1 / 0)\nx.start(); x.join()\n"
           "print(3)\n"),
    script("error in an exit hook", "CPython reports it and exits with 0",
           "import atexit\natexit.register(lambda: 1 / 0)\nprint(3)\n"),
    script("exit in an exit hook", "CPython reports it and exits with 0",
           "import atexit, sys\natexit.register(sys.exit, 1)\nprint(3)\n"),
    script("timer", "non-daemon threads are waited for",
           "import threading\nthreading.Timer(0.02, print, (3,)).start()\n"),
    script("finalisers", "globals go in their order",
           "class D:\n    def __init__(s, n): s.n = n\n    def __del__(s): print(s.n)\n"
           "a = D(1)\nb = D(2)\n_c = D(3)\n", expected="1\n2\n3\n"),
    script("unittest.main", "its log is stderr's, its status 0",
           "import unittest\nclass T(unittest.TestCase):\n    def test(self): print(3)\n"
           "unittest.main()\n"),
    script("doctest", "of __main__",
           "def f():\n    '''\n    >>> f()\n    3\n    '''\n    return 3\n"
           "import doctest\nprint(doctest.testmod().attempted + 2)\n"),
    script("memory error caught", "the program goes on",
           "try: x = bytearray(10**10)\nexcept MemoryError: print(3)\n"),
    script("recursion error caught", "the program goes on",
           "def f(): f()\ntry: f()\nexcept RecursionError: print(3)\n"),
    script("900 calls deep", "CPython allows 1000",
           "def f(n): return 3 if n == 0 else f(n - 1)\nprint(f(900))\n"),
    script("Ctrl-C", "status 130", "print(3)\nraise KeyboardInterrupt\n", RUNTIME,
           error="KeyboardInterrupt"),
)  # fmt: skip

LIBRARY = (
    script("own alarm", "a program may have timers", "import signal\n"
           "signal.signal(signal.SIGALRM, lambda *a: print(3))\n"
           "signal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pause()\n"),
    script("pickled class", "__main__ can be imported",
           "import pickle\nclass C: x = 3\nprint(pickle.loads(pickle.dumps(C())).x)\n"
           "from __main__ import C as D\nassert C is D\n"),
    script("executor", "threads are allowed",
           "from concurrent.futures import ThreadPoolExecutor as E\n"
           "with E() as e: print(sum(e.map(int, '12')))\n"),
    script("pool of threads", "it has no processes, and no locks between any",
           "from multiprocessing.pool import ThreadPool as P\n"
           "with P() as p: print(sum(p.map(int, '12')))\n"),
    script("dummy processes", "they are threads",
           "from multiprocessing.dummy import Pool, Process, Queue\nq = Queue()\n"
           "with Pool(4) as p: q.put(sum(p.imap_unordered(int, '12')))\n"
           "x = Process(target=lambda: print(q.get()))\nx.start(); x.join()\n"),
    script("locks between processes", "one process can have them too",
           "import multiprocessing as m\nq, e, s = m.Queue(), m.Event(), m.Semaphore(2)\n"
           "with m.Lock(), m.RLock(), s, m.Condition(): q.put(3)\ne.set()\n"
           "print(q.get() if e.wait(1) else 0)\n"),
    script("eight threads at once", "each has a stack of the usual size",
           "import threading as t\nb = t.Barrier(9)\n"
           "for _ in range(8): t.Thread(target=b.wait).start()\nb.wait()\nprint(3)\n"),
    script("antigravity", "no browser, no error", "import antigravity\nprint(3)\n"),
    script("database in memory", "no file, no harm",
           "import sqlite3\nprint(*sqlite3.connect(':memory:').execute('select 3').fetchone())"),
    script("network modules", "importing them is no attack",
           "import ssl, http.client, urllib.request, multiprocessing, tempfile\nprint(3)\n"),
    script("mangled names", "as the compiler mangles",
           "class C:\n    __x = 3\n    def f(s): return s.__x\nprint(C().f(), C._C__x)",
           expected="3 3\n"),
    script("own trace function", "it does not stop ours",
           "import sys\nn = 0\ndef t(*a):\n    global n\n    n = 3\n    return t\n"
           "sys.settrace(t)\n(lambda: 0)()\nsys.settrace(None)\nprint(n)\n"),
    script("own profiler", "it does not stop ours",
           "import cProfile\np = cProfile.Profile()\np.enable()\nx = sum([1, 2])\np.disable()\n"
           "print(x)\n"),
    # not by `marshal`: on 3.11 the map of the probes is a constant of the code
    script("code built anew", "bytecode may be copied", "def f(): return 3\n"
           "def g(): pass\ng.__code__ = f.__code__.replace()\nprint(g())\n"),
    script("no collector", "cycles may stay",
           "import gc\ngc.disable()\nfor _ in range(1000):\n    x = []\n    x.append(x)\nprint(3)"),
    script("fault handler", "a program may switch it on",
           "import faulthandler\nfaulthandler.enable()\nprint(3)\n"),
    script("names like ours", "the judge's words are free",
           "def run(): return 3\nchild = job = prelude = hits = head = module = values = run\n"
           "print(child())\n"),
)  # fmt: skip

SCRIPTS = (*SOURCES, *READING, *PRINTING, *ENDING, *LIBRARY)
