"""Where this process stands among those of a run over several hosts.

Known before JAX is loaded, since the watcher of a host (`watching`) joins the others first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stepcoder_jax.records import InputError

# Set on each host of a run over several: "1", or ADDRESS:PORT,PROCESSES,INDEX.
HOSTS_VARIABLE = "STEPCODER_DISTRIBUTED"


class PlaceError(InputError):
    """Processes that cannot be told apart; the message names the variable."""


class Place(NamedTuple):
    """One process of several: JAX's coordinator listens at address:port on process 0."""

    address: str
    port: int
    processes: int
    number: int  # of this one, from 0

    @property
    def meeting_port(self) -> int:
        """Where the watcher of process 0 listens; see `watching`."""
        return self.port + 1


def find(environ: Mapping[str, str]) -> Place | None:
    """The place that the variable gives; None where it gives none, or leaves it to JAX.

    Raises PlaceError for a value that is no place.
    """
    said = environ.get(HOSTS_VARIABLE, "")
    if said in ("", "1"):
        return None
    where, *numbers = said.split(",")
    address, _, port = where.rpartition(":")
    words = (port, *numbers)
    if len(words) != 3 or not address or not all(word.isdecimal() for word in words):
        raise PlaceError(
            f"{HOSTS_VARIABLE}: expected 1 or ADDRESS:PORT,PROCESSES,INDEX, got {said!r}"
        )
    place = Place(address, *map(int, words))
    if place.number >= place.processes:
        raise PlaceError(
            f"{HOSTS_VARIABLE}={said}: expected an index below the number of processes, "
            f"0 to {place.processes - 1}, got {place.number}"
        )
    if not 0 < place.port < 65535:
        raise PlaceError(
            f"{HOSTS_VARIABLE}={said}: expected a port from 1 to 65534 (the one above it "
            f"is used, too), got {place.port}"
        )
    return place
