"""The loop of the host around decoding: finished rollouts hand their slots over.

Rollouts wait in the order of the batch; a prompt is read once for all of its rollouts.
After every chunk the host looks for stop strings, lets finished completions go, and gives
their slots to those that wait. Of several hosts each looks at the slots that its devices
hold, and tells the others what they drew and where it stops: from there on all have the
same arrays, and decide alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from stepcoder_jax.pytrees import PromptBatch, Rollout
from stepcoder_jax.sampling.chunks import Chunk, DecodeState, Prompts

Params = Any
FindStop = Callable[[list[int]], int | None]
NO_STOP = -1


def alone(chunk: Chunk, stops: np.ndarray) -> tuple[Chunk, np.ndarray]:
    """`Sampler.share` of the only host."""
    return chunk, stops


class Sampler(NamedTuple):
    """The jitted pieces of a sampler, and how a chunk comes to the hosts.

    `to_host` gives the rows that this host looks at (`looks`, bool[R]; None: all), and
    `share` those of all hosts, with what was found in them.
    """

    prepare: Callable[[Params], Params]
    read_prompts: Callable[[Params, np.ndarray, np.ndarray], Prompts]
    empty_state: Callable[[int], DecodeState]  # of a width
    resize: Callable[[DecodeState, int], DecodeState]
    fill_slots: Callable[[DecodeState, Prompts, np.ndarray, np.ndarray, Any], DecodeState]
    advance: Callable[
        [Params, DecodeState, np.ndarray, np.ndarray], tuple[DecodeState, Chunk]
    ]
    to_host: Callable[[Any], Any]
    num_slots: int  # R
    num_prompts: int  # G, read at a time
    num_columns: int  # T
    chunk: int  # C
    looks: np.ndarray | None = None
    share: Callable[[Chunk, np.ndarray], tuple[Chunk, np.ndarray]] = alone


class Completion(NamedTuple):
    """A rollout that has ended: by EOS, a stop string or the length limit."""

    row: int  # of the batch
    tokens: np.ndarray  # i32[n], the ending token included
    logprobs: np.ndarray  # f32[n], the sampler's own
    kept_mass: np.ndarray  # f32[n]
    truncated: bool  # ended by the length limit


def width_for(need: int, limit: int) -> int:
    """The least of four widths up to `limit` that holds `need` tokens.

    Few widths, since each is compiled; a cache much wider than needed costs time, for
    attention reads all of it.
    """
    step = -(-limit // 32) * 8
    return -(-need // step) * step


class Slots:
    """Which rollout each slot continues, and what it has drawn so far."""

    def __init__(self, batch: PromptBatch, sampler: Sampler) -> None:
        self.batch, self.sampler = batch, sampler
        self.row = np.full(sampler.num_slots, -1)
        self.length = np.zeros(sampler.num_slots, int)  # tokens in the cache
        self.drawn: list[list[Chunk]] = [[] for _ in range(sampler.num_slots)]
        self.unread = deque(group_rows(batch))
        self.unplaced: deque[tuple[int, int]] = deque()  # row of the prompts, of the batch
        self.prompt_width = width_for(
            int(batch.prompt_length.max(initial=1)), batch.tokens.shape[1]
        )
        self.limit = batch.tokens.shape[1] + sampler.num_columns + sampler.chunk

    @property
    def waiting(self) -> bool:
        return bool(self.unread or self.unplaced)

    @property
    def busy(self) -> np.ndarray:
        """Slots that hold a rollout, bool[R]."""
        return self.row >= 0

    def next_prompts(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens i32[G, P] and lengths i32[G] of the next prompts; few are padded."""
        size = self.sampler.num_prompts
        tokens = np.zeros((size, self.prompt_width), np.int32)
        lengths = np.zeros(size, np.int32)
        for place in range(min(size, len(self.unread))):
            rows = self.unread.popleft()
            width = min(self.prompt_width, self.batch.tokens.shape[1])
            tokens[place, :width] = self.batch.tokens[rows[0], :width]
            lengths[place] = self.batch.prompt_length[rows[0]]
            self.unplaced.extend((place, row) for row in rows)
        return tokens, lengths

    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Give free slots to waiting rollouts: source and index i32[R] of `fill_slots`."""
        source = np.full(len(self.row), -1, np.int32)
        index = np.zeros(len(self.row), np.int32)
        for slot in np.flatnonzero(~self.busy):
            if not self.unplaced:
                break
            source[slot], row = self.unplaced.popleft()
            self.row[slot], self.drawn[slot] = row, []
            self.length[slot] = self.batch.prompt_length[row]
            index[slot] = self.batch.index[row]
        return source, index

    def width(self) -> int:
        """The width of the cache that the next chunk needs."""
        longest = int(self.length[self.busy].max(initial=1))
        need = max(longest + self.sampler.chunk, self.prompt_width)
        return width_for(need, self.limit)

    def find_stops(self, chunk: Chunk, find_stop: FindStop | None) -> np.ndarray:
        """How many tokens of each slot's rollout to keep, i32[R]; NO_STOP where it goes on.

        Of the slots that this host looks at.
        """
        stops = np.full(len(self.row), NO_STOP, np.int32)
        if find_stop is not None:
            looks = (
                self.busy if self.sampler.looks is None else self.busy & self.sampler.looks
            )
            for slot in np.flatnonzero(looks).tolist():
                parts = [part.tokens[: part.drawn] for part in self.drawn[slot]]
                parts.append(chunk.tokens[slot][: chunk.drawn[slot]])
                cut = find_stop(np.concatenate(parts).tolist())
                stops[slot] = NO_STOP if cut is None else cut
        return stops

    def take(self, chunk: Chunk, stops: np.ndarray) -> list[Completion]:
        """Note what a chunk drew; free the slots of the rollouts that have ended."""
        done = []
        for slot in np.flatnonzero(self.busy).tolist():
            self.length[slot] += chunk.drawn[slot]
            self.drawn[slot].append(Chunk(*(x[slot] for x in chunk)))
            if stops[slot] != NO_STOP:
                done.append(cut_to(self.completion(slot), int(stops[slot])))
            elif not chunk.live[slot]:
                completion = self.completion(slot)
                done.append(completion._replace(truncated=not chunk.ended[slot]))
            else:
                continue
            self.row[slot] = -1
        return done

    def completion(self, slot: int) -> Completion:
        """What a slot has drawn so far."""
        tokens, logprobs, kept_mass = (
            np.concatenate([getattr(part, name)[: part.drawn] for part in self.drawn[slot]])
            for name in ("tokens", "logprobs", "kept_mass")
        )
        return Completion(int(self.row[slot]), tokens, logprobs, kept_mass, truncated=False)


def group_rows(batch: PromptBatch) -> list[list[int]]:
    """Rows of each prompt, in the order in which the prompts come; padding is left out."""
    groups: dict[bytes, list[int]] = {}
    for row, length in enumerate(batch.prompt_length):
        if length:
            key = np.asarray(batch.tokens[row, :length], np.int32).tobytes()
            groups.setdefault(key, []).append(row)
    return list(groups.values())


def cut_to(completion: Completion, count: int) -> Completion:
    """The first `count` tokens, ended by a stop string."""
    row, tokens, logprobs, mass, _ = completion
    return Completion(row, tokens[:count], logprobs[:count], mass[:count], truncated=False)


def stream(
    sampler: Sampler,
    actor: Params,
    batch: PromptBatch,
    key: Any,
    find_stop: FindStop | None,
) -> Iterator[list[Completion]]:
    """Continue every prompt until EOS, a stop string or the length limit.

    Yields the completions that ended in a chunk while the device is at work on the next.
    `batch` holds numpy arrays; rows of prompt_length 0 are padding and never come. `key`
    is that of the iteration, fold_in(key(seed), step).
    A completion that a stop string ends keeps the token that completes the string:
    `find_stop(ids drawn so far)` says how many tokens to keep, or None.
    """
    slots = Slots(batch, sampler)
    if not slots.waiting:
        return
    weights = sampler.prepare(actor)
    width = width_for(slots.prompt_width + sampler.chunk, slots.limit)
    state = sampler.empty_state(width)
    done: list[Completion] = []
    while True:
        while slots.waiting and not slots.busy.all():
            if not slots.unplaced:
                prompts = sampler.read_prompts(actor, *slots.next_prompts())
            state = sampler.fill_slots(state, prompts, *slots.place(), key)
        if not slots.busy.any():
            break
        if slots.width() != width:
            width = slots.width()
            state = sampler.resize(state, width)
        # with rollouts waiting, a chunk ends when a quarter of its slots is free
        enough = slots.busy.sum() * 3 // 4 if slots.waiting else 0
        state, chunk = sampler.advance(
            weights, state, ~slots.busy, np.asarray(enough, np.int32)
        )
        if done:
            yield done
        chunk = sampler.to_host(chunk)
        done = slots.take(*sampler.share(chunk, slots.find_stops(chunk, find_stop)))
    if done:
        yield done


def collect(
    batch: PromptBatch, num_columns: int, completions: Iterable[Completion]
) -> Rollout:
    """All completions of a batch as one Rollout of numpy arrays, in the batch's order."""
    rows = len(batch.tokens)
    rollout = Rollout(
        tokens=np.pad(batch.tokens, ((0, 0), (0, num_columns))),
        prompt_length=np.asarray(batch.prompt_length),
        length=np.array(batch.prompt_length),
        mask=np.zeros((rows, num_columns), bool),
        logprobs=np.zeros((rows, num_columns), np.float32),
        kept_mass=np.zeros((rows, num_columns), np.float32),
        truncated=np.zeros(rows, bool),
    )
    for row, tokens, logprobs, mass, truncated in completions:
        start, count = int(batch.prompt_length[row]), len(tokens)
        rollout.tokens[row, start : start + count] = tokens
        rollout.length[row] += count
        rollout.mask[row, :count] = True
        rollout.logprobs[row, :count] = logprobs
        rollout.kept_mass[row, :count] = mass
        rollout.truncated[row] = truncated
    return rollout
