"""The product with a frozen matrix, by the quicker of the two libraries that PyTorch brings for CPUs.

PyTorch itself takes MKL, which on AMD's processors uses half of their vector width; oneDNN, which it takes
for other types than float32, uses all of it. The two differ by rounding.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear, pad

_FEWEST_ROWS = 128  # with fewer MKL is as quick
_BLOCK = 64  # rows are filled up to a multiple: oneDNN compiles a kernel for each number that it meets
_ONE_DNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def quick_linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """As `torch.nn.functional.linear`, without a graph: (..., d_in), (d_out, d_in) to (..., d_out)."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    if not _ONE_DNN or len(rows) < _FEWEST_ROWS or rows.device.type != "cpu" or rows.dtype != torch.float32:
        return linear(inputs, weight, bias)
    filled = pad(rows, (0, 0, 0, -len(rows) % _BLOCK))
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "none", [], "")
    return outputs[: len(rows)].view(*inputs.shape[:-1], -1)
