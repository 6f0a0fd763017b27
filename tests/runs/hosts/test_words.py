"""What of a trainer's standard error is for people."""

from stepcoder_jax.runs.hosts.words import Relay, is_severed

ABORT = b"""iteration 3/9  reward
E1130 21:00:00.000000  12 coordination_service_agent.cc:613] ERROR reported by service
F1130 21:00:00.000001  12 client.h:80] Terminating process: JAX distributed service failed
*** Check failure stack trace: ***
    @     0x7f03  absl::LogMessageFatal
Fatal Python error: Aborted
"""


def test_the_last_words_of_c_are_kept_and_not_shown():
    relay = Relay()
    shown = b"".join(relay.feed(ABORT[i : i + 7]) for i in range(0, len(ABORT), 7))
    assert shown == b"iteration 3/9  reward\n"
    assert "0x7f03" in relay.text and is_severed(relay.text)
    assert relay.is_dying


def test_all_else_is_shown_as_it_is():
    relay = Relay()
    text = "Traceback (most recent call last):\n  boo\nValueError: F1130 Größe\n"
    assert relay.feed(text.encode()) == text.encode()
    assert relay.feed(b"no end") == b"" and relay.close() == b"no end\n"
    assert relay.last == "no end" and not relay.is_dying


def test_errors_that_only_say_that_another_is_gone():
    gone = "FAILED_PRECONDITION: Gloo AllGather failed: Connection closed by peer [::1]:1"
    assert is_severed(gone)
    assert not is_severed("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes")
