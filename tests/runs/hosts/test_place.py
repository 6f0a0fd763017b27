"""Which process of how many this one is: tables of environments."""

import http.server
import threading

import pytest

from stepcoder_jax.runs.hosts.place import (
    HOSTS_VARIABLE,
    Place,
    PlaceError,
    ask_metadata,
    first_node,
    own_gpus,
    place_of,
)

FOUND = {HOSTS_VARIABLE: "1"}
TORCHRUN = {"MASTER_ADDR": "a", "MASTER_PORT": "29500", "WORLD_SIZE": "16", "RANK": "9"}
SLURM = {
    "SLURM_JOB_ID": "8200",
    "SLURM_STEP_NODELIST": "gpu[003-007,9],big1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_GPUS_ON_NODE": "8",
}
SHARED = {"SLURM_STEP_TASKS_PER_NODE": "2(x2),4", "SLURM_LOCALID": "1"}
ALL_8 = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0.x,t-1.x", "TPU_WORKER_ID": "1"}
METADATA = {
    "agent-worker-number": "2",
    "worker-network-endpoints": "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3,x:y:z",
}
PLACES = [
    ({}, None),
    ({HOSTS_VARIABLE: ""}, None),
    ({HOSTS_VARIABLE: "0", **TORCHRUN}, None),
    (TORCHRUN, None),  # nobody asked for several hosts
    ({HOSTS_VARIABLE: "10.0.0.1:99,4,3"}, Place("10.0.0.1", 99, 4, 3)),
    ({HOSTS_VARIABLE: "[::1]:99,1,0"}, Place("[::1]", 99, 1, 0)),
    # the triple says it, whatever else is there; and all GPUs stay those of this process
    ({HOSTS_VARIABLE: "h:99,4,3", **TORCHRUN, **SLURM}, Place("h", 99, 4, 3)),
    ({**FOUND, **TORCHRUN}, Place("a", 29500, 16, 9)),
    ({**FOUND, **TORCHRUN, **SLURM, **GKE}, Place("a", 29500, 16, 9)),
    # some export these for other programs, and leave numbers to Slurm
    ({**FOUND, "MASTER_ADDR": "a", **SLURM}, Place("gpu003", 61464, 4, 3)),
    ({**FOUND, **SLURM, "JAX_COORDINATOR_PORT": "77"}, Place("gpu003", 77, 4, 3)),
    ({**FOUND, **SLURM, "SLURM_STEP_NUM_TASKS": "6"}, Place("gpu003", 61464, 6, 3)),
    ({**FOUND, **GKE}, Place("t-0.x", 8482, 2, 1)),
    (FOUND, Place("10.0.0.2", 8482, 3, 2)),
]


@pytest.mark.parametrize(("environ", "place"), PLACES)
def test_an_environment_says_where_a_process_stands(environ, place):
    assert place_of(environ, 8, METADATA.get) == place


REFUSED = [
    ({HOSTS_VARIABLE: "yes"}, "expected 1 or ADDRESS:PORT,PROCESSES,INDEX, got 'yes'"),
    ({HOSTS_VARIABLE: "10.0.0.1,2,0"}, "expected 1 or ADDRESS:PORT"),
    ({HOSTS_VARIABLE: "h:1,2"}, "expected 1 or ADDRESS:PORT"),
    ({HOSTS_VARIABLE: "h:1,2,²"}, "expected 1 or ADDRESS:PORT"),
    (
        {HOSTS_VARIABLE: "h:1,2,2"},
        "an index below the number of processes, 0 to 1, got 2",
    ),
    ({HOSTS_VARIABLE: "h:1,0,0"}, "below the number of processes"),
    ({HOSTS_VARIABLE: ":1,2,0"}, "expected 1 or ADDRESS:PORT"),
    ({HOSTS_VARIABLE: "h:65535,2,0"}, "expected a port from 1 to 65534"),
    ({HOSTS_VARIABLE: "h:0,2,0"}, "expected a port from 1 to 65534"),
    ({**FOUND, **TORCHRUN, "RANK": "16"}, "expected an index below .* 0 to 15, got 16"),
    ({**FOUND, **TORCHRUN, "RANK": "x"}, "RANK: expected a whole number, got 'x'"),
    ({**FOUND, **TORCHRUN, "RANK": ""}, "WORLD_SIZE without RANK; set all of them"),
    (FOUND, r"=1: no hosts were found; set STEPCODER_DISTRIBUTED to ADDRESS:PORT"),
    ({**FOUND, **GKE, "MEGASCALE_NUM_SLICES": "2"}, "a run takes one slice"),
    (
        {**FOUND, **SLURM, **SHARED, "SLURM_GPUS_ON_NODE": "6"},
        "6 GPUs do not divide over 4",
    ),
    ({**FOUND, **SLURM, "SLURM_LOCALID": "1"}, "process 1 of 1 on this node"),
]


@pytest.mark.parametrize(("environ", "said"), REFUSED)
def test_an_environment_without_a_place_is_refused_in_a_line(environ, said):
    with pytest.raises(PlaceError, match=said) as refused:
        place_of(environ, 8, lambda _: "")
    assert "\n" not in str(refused.value)


GPUS = [
    ({}, None),
    (SLURM, None),  # one task a node: JAX alone would take the one of SLURM_LOCALID
    ({**SLURM, **SHARED}, (2, 3)),  # node 3 is past the end of the list: as the last
    ({**SLURM, **SHARED, "SLURM_NODEID": "0"}, (4, 5, 6, 7)),
    ({**SLURM, **SHARED, **ALL_8}, (2, 3)),
    # --gpus-per-task: each task sees its own already, numbered from 0
    ({**SLURM, **SHARED, "CUDA_VISIBLE_DEVICES": "0,1"}, None),
    ({**SLURM, **SHARED, "CUDA_VISIBLE_DEVICES": "5"}, None),
    ({**SLURM, **SHARED, "JAX_PLATFORMS": "cpu", "SLURM_GPUS_ON_NODE": "6"}, None),
    ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, (4, 5, 6, 7)),
    ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "4,6"}, (1,)),
    ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, None),
    # torchrun within a task of Slurm: its own numbers hold
    ({**SLURM, "LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": "8"}, (7,)),
    # a batch script is one process, whatever the job asked for
    ({"SLURM_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "0"}, None),
]


@pytest.mark.parametrize(("environ", "gpus"), GPUS)
def test_a_process_has_all_gpus_of_its_node_or_its_part(environ, gpus):
    assert own_gpus(environ, 8) == gpus


def test_gpus_whose_number_is_not_known_are_one_each():
    assert own_gpus({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, 0) == (1,)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("n[01-03]", "n01"), ("a[7,9-11],b2", "a7")],
)
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


def test_metadata_are_asked_of_the_machine(monkeypatch):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            found = self.headers["Metadata-Flavor"] == "Google" and key in METADATA
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(METADATA.get(key, "").encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not for this machine's own
        assert place_of(FOUND, 0, ask_metadata).processes == 3
        assert ask_metadata("else") == ""
        server.shutdown()
    assert ask_metadata("agent-worker-number") == ""
