"""Symmetric weight quantisation: in blocks for ONNX Runtime's `MatMulNBits`, per output channel for integer
products.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Quantize = Literal["none", "int8", "int4", "w8a8"]
"""Number format of a graph's weights. `w8a8` replaces `int8` if the CPU multiplies 8-bit integers exactly;
then activations have 8 bits too, with one scale per token (see `integer`).
"""
BITS: dict[Quantize, int] = {"int8": 8, "int4": 4}
BLOCK = 32
"""Number of weights, along a matrix's input features, that share a scale."""
WIDE_BLOCK = 128
"""Number of 4-bit weights that share a scale in large base models, whose decoding speed is limited by memory
bandwidth. ONNX Runtime's CPU kernel reads 8 bytes per scale, so a 4-bit weight takes 6 bits in blocks of 32
and 4.5 bits in blocks of 128.
"""


def block_count(features: int, block: int = BLOCK) -> int:
    """Return the number of quantisation blocks for `features` inputs. The last block may be padded."""
    return -(-features // block)


def packed_shape(out: int, features: int, bits: int, block: int = BLOCK) -> tuple[int, int, int]:
    """Return the shape of a packed weight: [out, blocks, bytes per block]."""
    return out, block_count(features, block), block * bits // 8


def zero_points_shape(out: int, features: int, bits: int, block: int = BLOCK) -> tuple[int, int]:
    """Return the shape of a weight's packed zero points: [out, bytes per output]."""
    return out, -(-block_count(features, block) * bits // 8)


def zero_point(bits: int) -> int:
    """Return the byte value that stores explicit zero points: 0x80 for 8 bits, 0x88 (two zero points) for 4
    bits.
    """
    return 0x80 if bits == 8 else 0x88


def quantize_rows(
    rows: NDArray[np.float32], bits: int, block: int = BLOCK
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise a matrix [out, in] in blocks.

    Return (packed weights of `packed_shape`, scales [out, blocks]).
    """
    out, features = rows.shape
    count = block_count(features, block)
    missing = count * block - features
    padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    blocks = padded.reshape(out, count, block)
    return _eight(blocks) if bits == 8 else _four(blocks)


def quantize_channels(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise a matrix [out, in] per output channel. Return (int8 values [out, in], scales [out])."""
    scales = np.abs(rows).max(axis=1) / np.float32(127.0)
    return np.rint(rows / _divisor(scales)).astype(np.int8), scales


def dequantize_rows(
    packed: NDArray[np.uint8], scales: NDArray[np.float32], features: int, bits: int
) -> NDArray[np.float32]:
    """Compute the float32 weights [out, in] that `MatMulNBits` uses, from the packed arrays of
    `quantize_rows`.
    """
    codes = packed.astype(np.int16) - 128
    if bits == 4:
        pairs = np.stack([packed & 15, packed >> 4], axis=-1)
        codes = pairs.reshape(*packed.shape[:2], -1).astype(np.int16) - 8
    values = codes.astype(np.float32) * scales[..., None]
    return values.reshape(packed.shape[0], -1)[:, :features]


def _eight(blocks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    scales = np.asarray(_fold(np.maximum, np.abs(blocks)) / np.float32(127.0), dtype=np.float32)
    codes = blocks / _divisor(scales)
    np.rint(codes, out=codes)
    codes += np.float32(128.0)
    return np.clip(codes, 0, 255, out=codes).astype(np.uint8), scales


def _four(blocks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise blocks to 4 bits.

    The weight of largest magnitude in a block becomes exactly -8, so that all 16 values are used.
    """
    low, high = _fold(np.minimum, blocks), _fold(np.maximum, blocks)
    scales = np.asarray(np.where(high > -low, high, low) / np.float32(-8.0), dtype=np.float32)
    codes = blocks / _divisor(scales)
    np.rint(codes, out=codes)
    codes += np.float32(8.0)
    np.clip(codes, 0, 15, out=codes)
    pairs = codes.astype(np.uint8).view("<u2")
    return (pairs | (pairs >> 4)).astype(np.uint8), scales


def _fold(reduce: Callable[..., NDArray[np.float32]], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce the last axis by halving it repeatedly.

    On such a short axis, this is several times faster than NumPy's own reduction.
    """
    size = blocks.shape[-1]
    while size > 1:
        size //= 2
        blocks = reduce(blocks[..., :size], blocks[..., size:])
    return blocks[..., 0]


def _divisor(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scales as divisors: 0, the scale of a block of zeros, is replaced by 1."""
    return np.where(scales == 0, np.float32(1.0), scales)[..., None]
