"""The parts of a Qwen3 or Llama decoder layer, each a forward function with the backward function that undoes it.

N is the number of packed tokens, d a width. A backward function takes the gradient of the forward's result, what the
forward kept, and returns gradients in the order of its arguments.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor

# oneDNN picks AVX-512 on processors of every maker; MKL, behind torch.mm, only on Intel's.
_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and platform.machine().lower() in ("x86_64", "amd64")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x` [N, k] times the transpose of `weight` [m, k], [N, m], by the fastest kernel that the device has."""
    if _HAS_ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu" and len(x):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return found
    return x @ weight.T


def product_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `product` with respect to `x` and `weight`."""
    return product(grad, weight.T), product(grad.T, x.T)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`x` [..., d] over its root mean square, times `weight`; also the unweighted result and the reciprocal root.

    Computed in float32 at least, as in transformers.
    """
    wide = x.float() if x.dtype == torch.bfloat16 else x
    scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    normal = (wide * scale).to(x.dtype)
    return normal * weight, normal, scale


def rms_norm_backward(grad: Tensor, normal: Tensor, scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `rms_norm` with respect to `x` and, summed over the first dimension, `weight`."""
    of_weight = (grad * normal).sum(0)
    weighted = grad * weight
    along = (weighted * normal).mean(-1, keepdim=True)
    return weighted.addcmul_(normal, along, value=-1).mul_(scale), of_weight


def rotation(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, 1, head_dim / 2] of the rotary embedding at `positions` [N], computed in float32."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions.unsqueeze(-1).float() * (1.0 / theta**exponents)
    return angles.cos().unsqueeze(1).to(dtype), angles.sin().unsqueeze(1).to(dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of `x` [N, heads, d] by `cos` and `sin` [N, 1, d / 2]."""
    first, second = x.chunk(2, dim=-1)
    found = torch.empty_like(x)
    torch.mul(first, cos, out=found[..., : first.shape[-1]]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=found[..., first.shape[-1] :]).addcmul_(first, sin)
    return found


def rotated_backward(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient of `rotated` with respect to `x`: the rotation back."""
    return rotated(grad, cos, -sin)


def gated(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """SwiGLU's silu(gate) * up of `gate_up` [N, 2 d], [N, d] (Shazeer 2020); also silu(gate)."""
    gate, up = gate_up.chunk(2, dim=-1)
    activated = torch.nn.functional.silu(gate)
    return activated * up, activated


def gated_backward(grad: Tensor, gate_up: Tensor, activated: Tensor) -> Tensor:
    """The gradient of `gated` with respect to `gate_up`."""
    gate, up = gate_up.chunk(2, dim=-1)
    of_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return torch.cat([of_gate, grad * activated], dim=-1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(`query` `key`^T + `mask`) `value`, and the softmax; the query is scaled already.

    `query` [n, q, d], `key` and `value` [n, k, d], `mask` [n, q, k], 0 or minus infinity.
    """
    weights = torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2)), dim=-1)
    return torch.bmm(weights, value), weights


def attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attention` with respect to `query`, `key` and `value`."""
    of_value = torch.bmm(weights.transpose(1, 2), grad)
    of_weights = torch.bmm(grad, value.transpose(1, 2))
    of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
    return torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query), of_value
