"""Symmetric weight quantisation: in blocks for ONNX Runtime's `MatMulNBits`, by channel for integer products.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Quantize = Literal["none", "int8", "int4", "w8a8"]
"""The number format of a graph's weights. If the CPU multiplies 8-bit integers exactly, `int8` becomes
`w8a8`, which has 8-bit activations too, with one scale for each token (see `integer`)."""
BITS: dict[Quantize, int] = {"int8": 8, "int4": 4}
BLOCK = 32
"""Number of weights that share a scale, along the input features."""
WIDE_BLOCK = 128
"""Block size in big bases, whose decoding speed is limited by the bytes read for each token. ONNX Runtime's
CPU kernel reads 8 bytes for each scale, so a 4-bit weight takes 6 bits in blocks of 32 and 4.5 in these."""


def block_count(features: int, block: int = BLOCK) -> int:
    """Return the number of blocks along `features` inputs. The last one may be padded."""
    return -(-features // block)


def packed_shape(out: int, features: int, bits: int, block: int = BLOCK) -> tuple[int, int, int]:
    """Return the shape of the packed weight: [out, blocks, bytes in a block]."""
    return out, block_count(features, block), block * bits // 8


def zero_points_shape(out: int, features: int, bits: int, block: int = BLOCK) -> tuple[int, int]:
    """Return the shape of the packed zero points: [out, bytes in a row]."""
    return out, -(-block_count(features, block) * bits // 8)


def zero_point(bits: int) -> int:
    """Return the byte that fills explicit zero points: 0x80 for 8 bits; 0x88 for 4 bits, two in a byte."""
    return 0x80 if bits == 8 else 0x88


def quantize_rows(
    rows: NDArray[np.float32], bits: int, block: int = BLOCK
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise rows [out, in]. Return (packed weights of `packed_shape`, scales [out, blocks])."""
    out, features = rows.shape
    count = block_count(features, block)
    missing = count * block - features
    padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    blocks = padded.reshape(out, count, block)
    return _eight(blocks) if bits == 8 else _four(blocks)


def quantize_channels(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise rows [out, in]. Return (int8 codes [out, in], one scale for each output channel [out])."""
    scales = np.abs(rows).max(axis=1) / np.float32(127.0)
    return np.rint(rows / _divisor(scales)).astype(np.int8), scales


def dequantize_rows(
    packed: NDArray[np.uint8], scales: NDArray[np.float32], features: int, bits: int
) -> NDArray[np.float32]:
    """Compute the weights [out, in] that `MatMulNBits` multiplies with from the arrays of `quantize_rows`."""
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
    """Quantise to 4 bits. A block's largest magnitude becomes exactly -8, so that all 16 codes are used."""
    low, high = _fold(np.minimum, blocks), _fold(np.maximum, blocks)
    scales = np.asarray(np.where(high > -low, high, low) / np.float32(-8.0), dtype=np.float32)
    codes = blocks / _divisor(scales)
    np.rint(codes, out=codes)
    codes += np.float32(8.0)
    np.clip(codes, 0, 15, out=codes)
    pairs = codes.astype(np.uint8).view("<u2")
    return (pairs | (pairs >> 4)).astype(np.uint8), scales


def _fold(reduce: Callable[..., NDArray[np.float32]], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce the last axis by halves, several times as fast as NumPy's own reduction on so short an axis."""
    size = blocks.shape[-1]
    while size > 1:
        size //= 2
        blocks = reduce(blocks[..., :size], blocks[..., size:])
    return blocks[..., 0]


def _divisor(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scales with 0, the scale of a block of zeros, replaced so that they can be divided by."""
    return np.where(scales == 0, np.float32(1.0), scales)[..., None]
