"""What is learned of the device from the batches that ran: how long one will take, and how many tokens fit into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun

#: Seconds for a token until a batch has run: a BERT-base on one CPU core, so a first poll is rather too small.
FIRST_RATE: Final = 1e-3

#: Tokens that the device could compute in the time that a forward takes beside its tokens, until batches have shown it.
FIRST_OVERHEAD: Final = 512.0

#: Tokens. Above it a batch is as large as the budget anyway.
MOST_OVERHEAD: Final = 1e6

#: Tokens of a batch where the settings do not say: so many times the overhead, which is then 3 % of the batch's time.
#: Below the first number matrix products lose speed whatever a forward takes beside them. Above the second nothing is
#: gained on an H200, and on a CPU a tenth is lost: blocks of more than 32 MiB come from the kernel, which clears them.
OVERHEADS: Final = 30
LEAST_TOKENS: Final = 2_048
MOST_TOKENS: Final = 16_384

#: Of the newest batch against all before it: the last fifty count, and a device that slows down is noticed in as many.
FORGET: Final = 0.02

#: Weight of the first guess of the overhead against that of the batches that count: batches of one size say nothing of
#: it, and noise would decide.
TRUST: Final = 1e-3

#: Seconds below which a batch's time is the clock's noise.
SHORTEST: Final = 1e-6

#: Part of the budget from which on a batch is full: only full ones show that more tokens might fit.
FULL: Final = 0.8

#: Part of a lowered budget that is added to it when it rises: four steps make good for a half.
RISE: Final = 0.25

#: Full batches in a row before a lowered budget rises: a second or so of a GPU, enough where another process had taken
#: memory for a moment. Twice as many after each fall, up to the second number: there, attempts that fail cost less than
#: a thousandth of the device's time.
FIRST_PATIENCE: Final = 16
MOST_PATIENCE: Final = 4096


class Cost:
    """Seconds of one task's batches: so many for each forward, and so many for each token.

    Least squares of the relative errors, weighted by age: a line through the batches that ran. Attention makes long
    rows dearer than the line says, by a tenth at 512 tokens of a model as wide as DistilBERT.
    """

    def __init__(self) -> None:
        #: Seconds for a token of a row, with its share of padding and of overhead: what a request of it will take.
        self.seconds_per_token = FIRST_RATE
        #: Tokens that the device could compute in the time that a forward takes beside its own.
        self.overhead = FIRST_OVERHEAD
        self._seconds = self._own_tokens = 0.0
        # The sums of the normal equations: f(orwards), t(okens).
        self._ff = self._ft = self._tt = self._f = self._t = 0.0

    def learn(self, batch: Batch, seconds: float) -> None:
        """Take in the time that a batch took."""
        seconds = max(seconds, SHORTEST)
        keep = 1 - FORGET
        self._seconds = keep * self._seconds + seconds
        self._own_tokens = keep * self._own_tokens + batch.own_size
        self.seconds_per_token = self._seconds / max(self._own_tokens, 1)
        # What both cost, in units of this batch's time: then all batches' errors count alike.
        forwards, tokens = batch.forwards / seconds, batch.computed / seconds
        self._ff = keep * self._ff + forwards * forwards
        self._ft = keep * self._ft + forwards * tokens
        self._tt = keep * self._tt + tokens * tokens
        self._f = keep * self._f + forwards
        self._t = keep * self._t + tokens
        self.overhead = self._solve()

    @property
    def right_tokens(self) -> int:
        """Tokens of a batch from which on the device would gain nothing by more."""
        return round(min(max(OVERHEADS * self.overhead, LEAST_TOKENS), MOST_TOKENS))

    def _solve(self) -> float:
        """Return the ratio of what a forward and what a token costs; neither is below nothing."""
        trust = TRUST * self._ff
        ff, ft, tt = self._ff + trust, self._ft - trust * FIRST_OVERHEAD, self._tt + trust * FIRST_OVERHEAD**2
        forward = max(self._f * tt - self._t * ft, 0.0)
        token = self._t * ff - self._f * ft
        # Where tokens cost nothing, as with a model that answers at once, any overhead is as good as the largest.
        return min(forward / token, MOST_OVERHEAD) if token > 0 else MOST_OVERHEAD


@dataclass(slots=True)
class Budget:
    """Tokens of one task's batches, at most as many as it was made with: fewer where the device's memory was short.

    An attempt at more that fails costs a few forwards, so each fall makes the next attempt come later.
    """

    most: int
    """Where memory is not short."""
    tokens: int = field(init=False)
    """What `plan` is given."""
    _patience: int = field(init=False, default=FIRST_PATIENCE)
    """Full batches in a row before the next rise."""
    _full: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tokens = self.most

    def settle(self, most: int) -> None:
        """Allow so many from now on."""
        self.most = most
        self.tokens = min(self.tokens, most)

    def learn(self, batch: Batch, run: BatchRun) -> None:
        if run.fitted is None:
            self._ran(batch.size)
        # One row can be run in no other way, so that it failed says nothing of how many belong together.
        elif batch.slots > 1:
            self._fell_short(batch.size, run.fitted)

    def _ran(self, size: int) -> None:
        if size < FULL * self.tokens:
            return
        self._full += 1
        if self._full < self._patience:
            return
        self._full = 0
        if self.tokens < self.most:
            self.tokens = min(self.most, self.tokens + max(int(RISE * self.tokens), 1))
        else:
            self._patience = FIRST_PATIENCE

    def _fell_short(self, size: int, fitted: int) -> None:
        self._full = 0
        # A larger batch was planned before the last fall: it is not an attempt that failed again.
        if size <= self.tokens:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.tokens = min(self.tokens, fitted or size // 2)
