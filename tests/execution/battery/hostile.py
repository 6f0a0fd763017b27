"""Scripts that attack the judge, hang, or crash the interpreter.

None may do lasting harm where it succeeds: a kernel may lack the layer that holds it. What
is made is removed again, and nothing that exists is removed or changed.
"""

from tests.execution.battery.cases import (
    COMPILE,
    HELD,
    MEMORY,
    OUTPUT,
    RUNTIME,
    TIMEOUT,
    WRONG,
    script,
)

PROCESSES = (
    script("system", "no shell answers", "import os\nos.system('echo 3')\n", HELD),
    script("popen", "no process", "import os\nprint(os.popen('echo 3').read())\n", RUNTIME,
           error="PermissionError"),
    script("posix_spawn", "no process",
           "import os\nos.posix_spawn('/bin/echo', ['echo', '3'], {})\n", RUNTIME,
           error="PermissionError"),
    script("forkpty", "no process", "import os\nos.forkpty()\nprint(3)\n", RUNTIME),
    script("process pool", "no process", "import multiprocessing as m\n"
           "with m.Pool(2) as p: print(sum(p.map(int, '12')))\n", RUNTIME),
    script("clone", "no process", "import ctypes\n"
           "print(ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0 and 3)\n", HELD),
    script("forks that do not give up", "no process, and time ends",
           "import os\nwhile True:\n    try: os.fork() or os._exit(0)\n"
           "    except OSError: pass\n", TIMEOUT),
    script("kill the group", "no signal to others", "import os\nos.kill(0, 9)\nprint(3)", RUNTIME,
           error="PermissionError"),
    script("kill itself", "looks like the kernel's own kill",
           "import os\nprint(3, flush=True)\nos.kill(os.getpid(), 9)\n", (RUNTIME, MEMORY)),
    script("stop itself", "nobody wakes it",
           "import os\nprint(3, flush=True)\nos.kill(os.getpid(), 19)\n", TIMEOUT),
    script("main thread leaves", "the other one goes on", "import ctypes, threading\n"
           "def f():\n    while True: pass\nprint(3, flush=True)\n"
           "threading.Thread(target=f).start()\nctypes.CDLL(None).syscall(60, 0)\n", TIMEOUT),
    script("seventy threads at once", "a program has 64", "import threading as t\n"
           "t.stack_size(1 << 16)\ne = t.Event()\ntry:\n"
           "    for _ in range(70): t.Thread(target=e.wait).start()\n"
           "finally: e.set()\nprint(3)\n", RUNTIME, error="RuntimeError"),
    script("threads without end", "a program has 64", "import threading, time\n"
           "while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n",
           RUNTIME, error="RuntimeError"),
    script("threads that do not give up", "time ends", "import threading, time\n"
           "threading.stack_size(1 << 16)\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(9,)).start()\n"
           "    except RuntimeError: pass\n", TIMEOUT),
    script("slow down the worker", "it is the same user's",
           "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 5)\nprint(3)\n", RUNTIME,
           error="PermissionError"),
    script("slow down itself", "its limits are in seconds of its own",
           "import os\nos.nice(5)\nprint(3)\n", RUNTIME, error="PermissionError"),
    script("chain to a core", "so could the worker be",
           "import os\nos.sched_setaffinity(0, {0})\nprint(3)\n", RUNTIME),
)  # fmt: skip

FILES = (
    script("hard link", "nothing is writable",
           "import os\nx = f'/tmp/battery.{os.getpid()}'\nos.link(os.__file__, x)\nos.unlink(x)\nprint(3)\n",
           RUNTIME),
    script("remove the library", "refused before the folder is seen not to be empty",
           "import os\nos.rmdir(os.path.dirname(os.__file__))\n", RUNTIME,
           error="PermissionError"),
    script("pipe by name", "nothing is writable",
           "import os\nx = f'/tmp/battery.{os.getpid()}'\nos.mkfifo(x)\nos.unlink(x)\nprint(3)\n", RUNTIME),
    script("ten thousand files", "nothing is writable",
           "import os\nfor i in range(10**4):\n    x = f'/tmp/battery.{os.getpid()}'\n    open(x, 'x').close()\n"
           "    os.unlink(x)\nprint(3)\n", RUNTIME),
    script("temporary file", "nothing is writable",
           "import tempfile\ntempfile.TemporaryFile()\nprint(3)\n", RUNTIME),
    script("read the judge", "the package is no library of the program's",
           "import sys\nprint(open(sys.modules['stepcoder_jax'].__file__).read())\n", RUNTIME),
    script("command line of the worker", "no other process can be read",
           "import os\nprint(open(f'/proc/{os.getppid()}/cmdline').read())\n", RUNTIME,
           error="PermissionError"),
    script("hole in the output", "a limit of size, not of bytes written",
           "import os\nos.lseek(1, 10**12, 0)\nos.write(1, b'x')\n", OUTPUT),
    script("longer by truncation", "a limit of size, not of bytes written",
           "import os\nos.ftruncate(1, 10**12)\n", OUTPUT),
    script("seals", "the judge can still read", "import fcntl\nprint(3, flush=True)\n"
           "fcntl.fcntl(1, 1033, 15)\n", RUNTIME, error="PermissionError"),
    script("lease on the library", "others would wait to open it", "import fcntl, os\n"
           "fcntl.fcntl(os.open(os.__file__, 0), fcntl.F_SETLEASE, fcntl.F_RDLCK)\nprint(3)\n",
           RUNTIME, error="PermissionError"),
    script("lock on the library", "others would wait for it", "import fcntl, os\n"
           "fcntl.flock(os.open(os.__file__, 0), fcntl.LOCK_EX)\nprint(3)\n", RUNTIME,
           error="PermissionError"),
    script("descriptor of the result", "a script returns nothing",
           "import os\nos.write(3, b'3\\n')\n", HELD),
    script("expected output in memory", "it is not there",
           "import ctypes, os\nfor word in os.environ.values():\n    print(word)\n"
           "print(open('/proc/self/maps').read())\n", HELD, expected="SEC" + "RET\n"),
)  # fmt: skip

CRASHES = (
    script("fault", "signal 11", "import faulthandler\nfaulthandler._sigsegv()\n", RUNTIME,
           error="signal 11"),
    script("watchdog", "status 1", "import faulthandler, time\n"
           "faulthandler.dump_traceback_later(0.02, exit=True)\nprint(3, flush=True)\n"
           "time.sleep(0.5)\n", RUNTIME),
    script("terminated", "signal 15", "import signal\nprint(3, flush=True)\n"
           "signal.raise_signal(15)\n", RUNTIME, error="signal 15"),
    script("interpreter ended from C", "status 0, but nothing printed",
           "import ctypes\nctypes.pythonapi.Py_Exit(0)\nprint(3)\n", WRONG),
    script("collector let loose", "the worker lives on", "import gc\n"
           "for o in gc.get_objects():\n    try: o.clear()\n    except BaseException: pass\n"
           "print(4)\n", (*HELD, TIMEOUT, MEMORY)),
    script("error without a name", "an error all the same",
           "class M(type):\n    @property\n    def __name__(c): raise ValueError\n"
           "class E(Exception, metaclass=M): pass\nprint(3)\nraise E\n", RUNTIME),
    script("error that ends well", "its text is asked for after the verdict",
           "import os\nclass E(Exception):\n    def __str__(s): os._exit(0)\n"
           "print(3, flush=True)\nraise E\n", (RUNTIME, "pass")),
    script("nested text", "the compiler's own limit", "1" + "+1" * 200_000, COMPILE),
    script("map of 8 GB", "above the limit of memory",
           "import mmap\nmmap.mmap(-1, 8 << 30)\nprint(3)\n", MEMORY, error="OSError"),
    script("65 descriptors", "above the limit of files",
           "import os\nfor _ in range(65): os.dup(0)\nprint(3)\n", RUNTIME, error="OSError"),
    script("patched, then raised", "the exit status is the judge's",
           "import builtins, os, sys\nos._exit = sys.exit = lambda c: None\n"
           "builtins.type = None\nprint(3)\nraise ValueError\n", RUNTIME),
)  # fmt: skip

HANGS = (
    script("answer, then hang", "it never ends",
           "print(3, end='', flush=True)\nwhile True: pass\n", TIMEOUT),
    script("swallows everything", "it never ends", "while True:\n    try:\n"
           "        while True: pass\n    except BaseException: pass\n", TIMEOUT),
    script("reads past the end", "it never ends", "while True:\n    try: input()\n"
           "    except EOFError: pass\n", TIMEOUT),
    script("deadlock", "it never ends", "import threading\nx = threading.Lock()\nprint(3)\n"
           "x.acquire(); x.acquire()\n", TIMEOUT),
    script("exit hook that hangs", "it never ends", "import atexit\ndef f():\n"
           "    while True: pass\natexit.register(f)\nprint(3, flush=True)\n", TIMEOUT),
    script("finaliser that hangs", "it never ends", "class D:\n    def __del__(s):\n"
           "        while True: pass\nd = D()\nprint(3, flush=True)\n", TIMEOUT),
    script("slow error message", "it never ends", "class E(Exception):\n    def __str__(s):\n"
           "        while True: pass\nraise E\n", TIMEOUT),
    script("slow pattern", "C code cannot be interrupted",
           "import re\nre.match('(a+)+$', 'a' * 40 + 'b')\n", TIMEOUT),
    script("debugger", "reads its commands from the input", "breakpoint()\nprint(3)\n", HELD),
)  # fmt: skip

HOSTILE = (*PROCESSES, *FILES, *CRASHES, *HANGS)
