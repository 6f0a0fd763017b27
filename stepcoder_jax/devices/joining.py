"""JAX as one process of several: the only file that calls jax.distributed.initialize."""

from __future__ import annotations

import errno
import os
import socket

import jax

from stepcoder_jax.records import InputError
from stepcoder_jax.runs.hosts import place as places
from stepcoder_jax.runs.hosts.place import Place

JOIN_MINUTES = 5.0  # as run.join_minutes, for commands that have no config


class JoinError(InputError):
    """Processes that JAX cannot start on, or a machine without the devices asked for."""


def join_hosts(minutes: float = JOIN_MINUTES) -> None:
    """Make this process one of a run over several hosts, where HOSTS_VARIABLE is set.

    Raises PlaceError for a value that is no place, and JoinError where JAX does not find
    the others within `minutes`, or not the devices asked for.
    """
    if not jax.distributed.is_initialized():
        place = places.find(os.environ)
        if place is not None:
            start_jax(place, minutes)
    require_devices()


def start_jax(place: Place, minutes: float) -> None:
    """Start JAX as one of several processes."""
    if not place.number:
        require_free(place.port)
    # its notice handler would take SIGTERM away from `interrupt`
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            f"{place.address}:{place.port}",
            place.processes,
            place.number,
            local_device_ids=place.gpus,
            # under Slurm it would leave a process one GPU, whatever is given here
            cluster_detection_method="deactivate",
            initialization_timeout=max(1, round(60 * minutes)),
        )
    except (ValueError, RuntimeError) as error:
        raise JoinError(
            f"{place.address}:{place.port}: the hosts do not find each other "
            f"({first_line(error)})"
        ) from error


def require_free(port: int) -> None:
    """Refuse a port of this machine that is in use: JAX may share it without a word."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=is_dual).close()
    except OSError as error:
        taken = "is in use" if error.errno == errno.EADDRINUSE else "cannot be had"
        raise JoinError(
            f"port {port} of process 0's machine {taken} ({error.strerror}); end what has "
            "it, or start all processes with another port"
        ) from error


def require_devices() -> None:
    """Refuse a machine without the kind of device that JAX_PLATFORMS names first.

    JAX itself ends in a traceback, or goes on with the next kind without a word.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    mend = "install its driver and the extra of it (gpu, tpu), or set JAX_PLATFORMS=cpu"
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter without its plug-in
        raise JoinError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device ({first_line(error)}); {mend}"
        ) from error
    first = asked.split(",")[0].strip()
    if first and {"cuda": "gpu", "rocm": "gpu"}.get(first, first) != found:
        raise JoinError(
            f"JAX_PLATFORMS={asked}: JAX finds no {first} device and would run on {found}; "
            f"{mend}"
        )


def first_line(error: BaseException) -> str:
    """What an error says, or else its kind."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
