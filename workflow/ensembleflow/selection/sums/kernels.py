"""Compiled sums over samples: what every candidate would do to each of several ensembles, in one pass over the data.

All kernels take the ensembles that exist so far ("prefixes") as flat lists of members, and read the stored
probabilities of the candidates once for all of them. An ensemble's own sum is made anew for each chunk of samples
from its members' rows: nothing has to be kept between calls, so a call may run anywhere. Storage may be float16
(handed over as its bits, `uint16`), float32 or float64; every sum is float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from ensembleflow.selection.sums.compiled import compiled
from ensembleflow.selection.sums.stored import CHUNK_SAMPLES, LANES
from ensembleflow.selection.sums.stored import chunk_of_classes as plain_chunk_of_classes

__all__ = ["chunk_of_classes", "cross_entropy_sums", "squared_distance_sums", "widen"]

chunk_of_classes = register_jitable(plain_chunk_of_classes)

_CACHE_LINE_BYTES = 64

_MANTISSA_BITS = 52
_MANTISSA = 2**_MANTISSA_BITS - 1
_EXPONENT_BIAS = 1023
_LN_2 = math.log(2.0)


@intrinsic
def _float32_of_half(_typing_context: Any, bits: Any) -> Any:
    # Numba has no float16 on CPUs; LLVM has, and turns whole loops of this into the processor's own conversion.
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


def widen(value: Any) -> Any:
    """A stored probability as float64."""
    raise NotImplementedError("for compiled code only")


@overload(widen, inline="always")
def _widen_compiled(value: Any) -> Any:
    if value == types.uint16:

        def from_half(value: Any) -> Any:
            return np.float64(_float32_of_half(value))

        return from_half

    def from_float(value: Any) -> Any:
        return np.float64(value)

    return from_float


@intrinsic
def _prefetch(_typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    # To be read soon, into the second cache: the first would be overrun. Nothing else happens, whatever the address.
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(array)(context, builder, arguments[0])
        address = cgutils.get_item_pointer(context, builder, array, view, list(arguments[1:]))
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        read, level, data = (ir.IntType(32)(value) for value in (0, 2, 1))
        kinds = [address.type, read.type, level.type, data.type]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0i8"
        )
        builder.call(function, [address, read, level, data])
        return context.get_dummy_value()

    return types.none(array, row, column), generate


@compiled()
def _prefetch_row(stored: Any, row: int, start: int, stop: int) -> None:  # pragma: no cover - compiled
    for column in range(start, stop, _CACHE_LINE_BYTES // stored.itemsize):
        _prefetch(stored, row, column)


@compiled()
def cross_entropy_sums(
    stored: Any, offsets: Any, members: Any, candidates: Any, smallest: float, sums: Any
) -> None:  # pragma: no cover - compiled
    """Add to `sums` the summed -log of the averages' true-class probabilities (natural logarithm).

    The logarithm of a product is taken in place of a sum of logarithms: 1,024 samples cost one logarithm. The
    product's relative rounding error, some 1e-15, is that sum's absolute one. Each row is fetched while the one before
    it is worked on: the processor itself does not see that far past a logarithm, and memory would be waited for.

    Args:
        stored: the true class's probabilities (models, samples).
        offsets: prefix p has the members `members[offsets[p]:offsets[p + 1]]`: int64 (prefixes + 1,).
        members: indices of models, int64.
        candidates: indices of models, int64 (candidates,).
        smallest: averages below it count as this.
        sums: float64 (prefixes, candidates).
    """
    n_samples = stored.shape[1]
    n_prefixes = len(offsets) - 1
    totals = np.empty((n_prefixes, CHUNK_SAMPLES))
    values = np.empty(CHUNK_SAMPLES)
    lanes = np.empty(LANES)
    bits = lanes.view(np.int64)
    for start in range(0, n_samples, CHUNK_SAMPLES):
        length = min(CHUNK_SAMPLES, n_samples - start)
        for prefix in range(n_prefixes):
            _sum_rows(stored, members[offsets[prefix] : offsets[prefix + 1]], start, length, totals[prefix])
        # Factors of 1 where there is no sample.
        totals[:, length:] = 1.0
        values[length:] = 0.0
        for place in range(len(candidates)):
            if place + 1 < len(candidates):
                _prefetch_row(stored, candidates[place + 1], start, start + length)
            row = stored[candidates[place], start : start + length]
            for i in range(length):
                values[i] = widen(row[i])
            for prefix in range(n_prefixes):
                size = offsets[prefix + 1] - offsets[prefix] + 1
                logarithm = _log_of_product(totals[prefix], values, smallest * size, lanes, bits)
                sums[prefix, place] += length * math.log(size) - logarithm


@compiled()
def _sum_rows(stored: Any, members: Any, start: int, length: int, total: Any) -> None:  # pragma: no cover - compiled
    for i in range(length):
        total[i] = 0.0
    for place in range(len(members)):
        if place + 1 < len(members):
            _prefetch_row(stored, members[place + 1], start, start + length)
        row = stored[members[place], start : start + length]
        for i in range(length):
            total[i] += widen(row[i])


@compiled()
def _log_of_product(total: Any, values: Any, smallest: float, lanes: Any, bits: Any) -> float:  # pragma: no cover
    # Independent lanes, for the compiler may not reorder a product of floats itself.
    for lane in range(LANES):
        product = 1.0
        for first in range(0, CHUNK_SAMPLES, LANES):
            product *= max(total[first + lane] + values[first + lane], smallest)
        lanes[lane] = product
    exponent = 0
    for lane in range(LANES):
        exponent += (bits[lane] >> _MANTISSA_BITS) - _EXPONENT_BIAS
        bits[lane] = (bits[lane] & _MANTISSA) | (_EXPONENT_BIAS << _MANTISSA_BITS)
    width = LANES // 2
    while width:
        for lane in range(width):
            lanes[lane] *= lanes[lane + width]
        width //= 2
    return exponent * _LN_2 + math.log(lanes[0])


@compiled()
def squared_distance_sums(
    stored: Any, labels: Any, offsets: Any, members: Any, candidates: Any, sums: Any
) -> None:  # pragma: no cover - compiled
    """Add to `sums` the squared distances of the averages from the one-hot labels.

    Args:
        stored: probabilities (models, samples, classes).
        labels: int64 (samples,).
        offsets: as for `cross_entropy_sums`.
        members: likewise.
        candidates: likewise.
        sums: float64 (prefixes, candidates).
    """
    _, n_samples, n_classes = stored.shape
    n_prefixes = len(offsets) - 1
    chunk = chunk_of_classes(n_classes)
    total = np.empty(chunk * n_classes)
    lanes = np.empty(LANES)
    for start in range(0, n_samples, chunk):
        length = min(chunk, n_samples - start)
        n_values = length * n_classes
        whole = n_values // LANES * LANES
        for prefix in range(n_prefixes):
            for j in range(n_values):
                total[j] = 0.0
            for member in members[offsets[prefix] : offsets[prefix + 1]]:
                row = stored[member, start : start + length].reshape(n_values)
                for j in range(n_values):
                    total[j] += widen(row[j])
            # Towards the label: a one-hot vector is subtracted from the average, hence its multiple from the sum.
            size = np.float64(offsets[prefix + 1] - offsets[prefix] + 1)
            for i in range(length):
                total[i * n_classes + labels[start + i]] -= size
            for place in range(len(candidates)):
                row = stored[candidates[place], start : start + length].reshape(n_values)
                for lane in range(LANES):
                    lanes[lane] = 0.0
                for first in range(0, whole, LANES):
                    for lane in range(LANES):
                        difference = total[first + lane] + widen(row[first + lane])
                        lanes[lane] += difference * difference
                for j in range(whole, n_values):
                    difference = total[j] + widen(row[j])
                    lanes[j - whole] += difference * difference
                sums[prefix, place] += lanes.sum() / (size * size)
