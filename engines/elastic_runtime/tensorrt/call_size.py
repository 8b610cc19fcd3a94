"""How long the calls of an engine are: a few lengths, so that no prompt's odd end compiles anything.

TensorRT for RTX makes kernels for every length that it meets, in the background and once for each: a prompt whose last
piece had its own length would keep the CPU busy with kernels that nobody asks for again, and run on slower ones
meanwhile. Padding costs nothing but its arithmetic (`length` says which tokens are real).
"""

from __future__ import annotations

SIZES = (1, 16, 64, 256, 1024)  # beside the engine's max_tokens; 1 has a profile of its own
#: A call of fewer tokens takes as long as reading the weights does, on cards of the family's classes: 117 tokens of
#: bfloat16 weights, 264 of 4-bit ones make the arithmetic the longer part on an RTX 5080.
_WHILE_READING = 256


def call_size(wanted: int, most: int, max_tokens: int) -> int:
    """T of the next call for `wanted` tokens, at least 1, where `most` fit behind the longest row.

    The next larger length, unless it does not fit or more than half of it would be padding that costs time: then the
    next smaller one, and the rest comes in further calls.
    """
    fitting = sorted({size for size in (*SIZES, max_tokens) if size <= min(most, max_tokens)})
    larger = next((size for size in fitting if size >= wanted), None)
    if larger is None or larger > max(_WHILE_READING, 2 * wanted):
        return max(size for size in fitting if size <= wanted)
    return larger
