"""Positions, prefix sums and row statistics over response tokens; padding and holes are inert."""

from cppo_lab.lazy_torch import Tensor, torch


def positions(mask: Tensor) -> Tensor:
    """Position of each response token among those of its row, from 1, int32 [B, T]; 0 outside the mask."""
    return mask.cumsum(-1, dtype=torch.int32) * mask


def shift_right(values: Tensor, first: float = 0.0) -> Tensor:
    """The value one column to the left, `first` in column 0: an inclusive prefix becomes exclusive."""
    return torch.nn.functional.pad(values[..., :-1], (1, 0), value=first)


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the response tokens of each row [B]; 0 for a row without any. `values` must be 0 outside."""
    return values.sum(-1) / mask.sum(-1).clamp(min=1)


def row_quantile(values: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """Quantile (linear interpolation) over the response tokens of each row [B]; 0 for a row without any."""
    lengths = mask.sum(-1)
    last = (lengths - 1).clamp(min=0)
    rank = quantile * last.to(values.dtype)
    low = rank.floor().long()
    high = torch.minimum(low + 1, last)
    if quantile >= 0.5:
        # High quantiles need only the largest few of a row, which is cheaper than a full sort.
        number = min(int((1 - quantile) * values.shape[-1]) + 3, values.shape[-1])
        ordered = values.masked_fill(~mask, -torch.inf).topk(number, dim=-1).values
        low, high = last - low, last - high
    else:
        ordered = values.masked_fill(~mask, torch.inf).sort(dim=-1).values
    below = ordered.gather(-1, low.unsqueeze(-1)).squeeze(-1)
    above = ordered.gather(-1, high.unsqueeze(-1)).squeeze(-1)
    interpolated = below + (above - below) * (rank - rank.floor())
    return torch.where(lengths > 0, interpolated, torch.zeros_like(interpolated))
