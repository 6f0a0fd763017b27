"""Where this process stands among those of a run over several hosts.

Known before JAX is loaded, since the watcher of a host (`watching`) joins the others first.
`place_of` reads it from the environment: from the explicit triple, else torchrun's
variables, Slurm's, or what a TPU slice says of itself.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from stepcoder_jax.records import InputError

# Set on each host of a run over several: "1", or ADDRESS:PORT,PROCESSES,INDEX.
HOSTS_VARIABLE = "STEPCODER_DISTRIBUTED"

_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
_PORT_VARIABLE = "JAX_COORDINATOR_PORT"  # as JAX has it, and so is the port of a TPU
_TPU_PORT = 8482
# the first, and for how many jobs in a row there are others: two ports each
_SLURM_PORTS = (61440, 2047)

Environ = Mapping[str, str]
Ask = Callable[[str], str]  # attribute of this machine -> its value, "" for none


class PlaceError(InputError):
    """Processes that cannot be told apart; the message names the variable."""


class MisplacedError(PlaceError):
    """An index that none of the processes has; the others are to be told, at `place`."""

    def __init__(self, place: Place) -> None:
        super().__init__(misplaced(place.number, place.processes))
        self.place = place


class Place(NamedTuple):
    """One process of several: JAX's coordinator listens at address:port on process 0."""

    address: str
    port: int
    processes: int
    number: int  # of this one, from 0
    gpus: tuple[int, ...] | None = None  # its own, of those that it sees; None: all

    @property
    def meeting_port(self) -> int:
        """Where the watcher of process 0 listens; see `watching`."""
        return self.port + 1


WANTED = (
    f"set {HOSTS_VARIABLE} to ADDRESS:PORT,PROCESSES,INDEX, the address being that of "
    "process 0; or to 1 on a TPU slice, in an srun of Slurm, or beside MASTER_ADDR, "
    "MASTER_PORT, WORLD_SIZE and RANK"
)


def find(environ: Environ) -> Place | None:
    """`place_of` on this machine."""
    return place_of(environ, count_gpus(), ask_metadata)


def place_of(environ: Environ, gpus: int, ask: Ask) -> Place | None:
    """The place that the environment gives; None where HOSTS_VARIABLE is empty or 0.

    With "1" the first of these says it: torchrun's variables, Slurm's of a step, those of a
    TPU on Kubernetes, the metadata of a Cloud TPU (`ask`). `gpus` is their number on this
    machine, 0 where it is not known. Raises PlaceError where nothing says it, or nonsense.
    """
    said = environ.get(HOSTS_VARIABLE, "")
    if said in ("", "0"):
        return None
    place = _look_around(environ, ask) if said == "1" else _read_triple(said)
    if not 0 < place.port < 65535:
        raise PlaceError(
            f"{HOSTS_VARIABLE}={said}: expected a port from 1 to 65534 (the one above it "
            f"is used, too), got {place.port}"
        )
    if place.number >= place.processes:
        raise MisplacedError(place)
    return place._replace(gpus=own_gpus(environ, gpus))


def misplaced(number: int, processes: int) -> str:
    """What all hosts say of an index that is too high."""
    return (
        f"expected an index below the number of processes, 0 to {processes - 1}, got "
        f"{number}; see {HOSTS_VARIABLE}, or where it looks (RANK, SLURM_PROCID, "
        "TPU_WORKER_ID)"
    )


def port_taken(port: int, what: str = "is in use") -> str:
    """What all hosts say of the port where their watchers meet."""
    return (
        f"port {port} of process 0's machine {what}: the hosts meet there, one above the "
        "coordinator's port; end what has it, or start all with another port"
    )


def _read_triple(said: str) -> Place:
    where, *numbers = said.split(",")
    address, _, port = where.rpartition(":")
    words = (port, *numbers)
    if len(words) != 3 or not address or not all(map(_is_number, words)):
        raise PlaceError(
            f"{HOSTS_VARIABLE}: expected 1 or ADDRESS:PORT,PROCESSES,INDEX, got {said!r}"
        )
    return Place(address, int(port), int(numbers[0]), int(numbers[1]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _look_around(environ: Environ, ask: Ask) -> Place:
    given = [name for name in _TORCHRUN if environ.get(name)]
    if len(given) == len(_TORCHRUN):
        port, processes, index = (_number(environ, name) for name in _TORCHRUN[1:])
        return Place(environ["MASTER_ADDR"], port, processes, index)
    if all(environ.get(name) for name in _SLURM):
        return _of_slurm(environ)
    place = _of_tpu(environ, ask)
    if place is not None:
        return place
    if given:
        missing = ", ".join(name for name in _TORCHRUN if name not in given)
        raise PlaceError(
            f"{HOSTS_VARIABLE}=1: {', '.join(given)} without {missing}; set all of them"
        )
    raise PlaceError(f"{HOSTS_VARIABLE}=1: no hosts were found; {WANTED}")


def _of_slurm(environ: Environ) -> Place:
    """A task of a step: process 0 runs on the first of its nodes."""
    first, jobs = _SLURM_PORTS
    port = first + 2 * (_number(environ, "SLURM_JOB_ID") % jobs)
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    return Place(
        first_node(environ["SLURM_STEP_NODELIST"]),
        _number(environ, _PORT_VARIABLE, port),
        _number(environ, tasks),
        _number(environ, "SLURM_PROCID"),
    )


def first_node(nodes: str) -> str:
    """The first of Slurm's list of nodes, as `gpu[003-007,9],big1`."""
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes).split(",")[0]


def _of_tpu(environ: Environ, ask: Ask) -> Place | None:
    """A worker of a TPU slice, from Kubernetes' variables or the machine's metadata."""
    listed = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES", "")
    index = environ.get("TPU_WORKER_ID", "")
    if not listed or not index:
        index = ask("agent-worker-number")
        listed = ask("worker-network-endpoints") if index else ""
    if not listed:
        return None
    slices = environ.get("MEGASCALE_NUM_SLICES", "1")
    if slices != "1":
        raise PlaceError(
            f"MEGASCALE_NUM_SLICES={slices}: a run takes one slice; ask for a larger one"
        )
    workers = [_address(worker) for worker in listed.split(",")]
    where = {"TPU_WORKER_ID": index}
    return Place(
        workers[0],
        _number(environ, _PORT_VARIABLE, _TPU_PORT),
        len(workers),
        _number(where, "TPU_WORKER_ID"),
    )


def _address(worker: str) -> str:
    """Of HOST, HOST:PORT, or NAME:NUMBER:ADDRESS, which older slices have."""
    parts = worker.strip().split(":")
    return parts[2] if len(parts) == 3 else parts[0]


def _number(environ: Environ, name: str, default: int = 0) -> int:
    """A variable as a number; PlaceError where it is none."""
    said = environ.get(name, str(default)).strip()
    if not _is_number(said):
        raise PlaceError(f"{name}: expected a whole number, got {said!r}")
    return int(said)


def own_gpus(environ: Environ, gpus: int) -> tuple[int, ...] | None:
    """Numbers of this process's GPUs, counted among those that it sees; None: all of them.

    A process alone on its node has all of the allocation. Several share them in equal
    parts, but where Slurm has shared them already, so that each sees its own alone. `gpus`
    is the machine's number, for want of a better one. Raises PlaceError where they do not
    divide.
    """
    if environ.get("JAX_PLATFORMS", "").split(",")[0].strip() in ("cpu", "tpu"):
        return None
    local, tasks = _on_node(environ)
    if local >= tasks:
        raise PlaceError(f"process {local} of {tasks} on this node: count them from 0")
    if tasks == 1:
        return None
    held = _number(environ, "SLURM_GPUS_ON_NODE", gpus)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    seen = held if visible is None else len(list(filter(None, visible.split(","))))
    if seen == 0:  # their number is not known: one each, as JAX has it
        return (local,)
    if seen == 1 or ("SLURM_GPUS_ON_NODE" in environ and seen < held):
        return None
    if seen % tasks:
        raise PlaceError(
            f"{seen} GPUs do not divide over {tasks} processes on this node; start one "
            "process a node, or as many as divide them"
        )
    share = seen // tasks
    return tuple(range(local * share, (local + 1) * share))


def _on_node(environ: Environ) -> tuple[int, int]:
    """The number of this process on its node, and how many there are."""
    if environ.get("LOCAL_RANK") and environ.get("LOCAL_WORLD_SIZE"):
        return _number(environ, "LOCAL_RANK"), _number(environ, "LOCAL_WORLD_SIZE", 1)
    # of a step alone: in a batch script there is one process, whatever the job asked for
    counts = re.findall(
        r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE") or "1"
    )
    nodes = [int(tasks) for tasks, times in counts for _ in range(int(times or 1))]
    node = _number(environ, "SLURM_NODEID")
    return _number(environ, "SLURM_LOCALID"), nodes[min(node, len(nodes) - 1)]


def count_gpus() -> int:
    """NVIDIA's GPUs of this machine."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def ask_metadata(name: str) -> str:
    """An attribute of this machine from Google Cloud's metadata; "" where there is none."""
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=5) as answer:
            return str(answer.read().decode())
    except (OSError, http.client.HTTPException):
        return ""
