"""What `perf/soak` sends: bytes that follow from a seed and their place, so that a receiver knows each of
them; SHA-256 of both ends beside it."""

import array
import hashlib
import random

BLOCK_BYTES = 1 << 20
# Each of these begins with the number of its block: none of a stream is like another of it.
STEP_BYTES = 4096
STEP_WORDS = STEP_BYTES // 8


class Content:
    """The bytes of one direction of a stream, from its beginning on."""

    def __init__(self, seed):
        self.block = bytearray(random.Random(seed).randbytes(BLOCK_BYTES))
        self.words = memoryview(self.block).cast("Q")
        self.number = None
        self.offset = 0
        self.digest = hashlib.sha256()
        self.first_wrong = None

    def _turn_to(self, number):
        """Makes the block of this number."""
        if number != self.number:
            self.words[::STEP_WORDS] = array.array("Q", [number]) * (BLOCK_BYTES // STEP_BYTES)
            self.number = number

    def next(self, most):
        """At most so many of the bytes that come next, for the sender to send now."""
        number, at = divmod(self.offset, BLOCK_BYTES)
        self._turn_to(number)
        piece = memoryview(self.block)[at : at + most]
        self.digest.update(piece)
        self.offset += len(piece)
        return piece

    def check(self, piece):
        """What came next at the receiver. The first byte that is wrong is remembered."""
        self.digest.update(piece)
        while piece:
            number, at = divmod(self.offset, BLOCK_BYTES)
            self._turn_to(number)
            here = piece[: BLOCK_BYTES - at]
            wanted = memoryview(self.block)[at : at + len(here)]
            if self.first_wrong is None and here != wanted:
                differs = next(n for n, (a, b) in enumerate(zip(here, wanted)) if a != b)
                self.first_wrong = self.offset + differs
            self.offset += len(here)
            piece = piece[len(here) :]

    def sum(self):
        return self.digest.hexdigest()


def datagram(number):
    """Content and size of a datagram follow from its number."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * 40)[: int.from_bytes(seed[:2], "big") % 1200]
