"""Unpack responses that a trainer without padding stores end to end, into the rows that the rules read."""

from cppo_lab.lazy_torch import Tensor, torch


def unpack(values: Tensor, lengths: Tensor) -> Tensor:
    """[N, ...] values of B responses laid end to end as [B, T, ...], T the longest; zeros behind each response.

    `lengths` [B] holds the tokens of each response, holes included and 0 allowed. Gradients flow back to
    `values`. A bool response mask is unpacked likewise. Raises ValueError when the lengths do not add up to N.
    """
    total = int(lengths.sum())
    if len(values) != total:
        raise ValueError(f"lengths add up to {total}: must be {len(values)}, the number of packed values")
    width = max(int(lengths.max()), 1)
    columns = torch.arange(width, device=values.device)
    inside = columns < lengths.to(values.device).unsqueeze(-1)
    rows = values.new_zeros(len(lengths), width, *values.shape[1:])
    return rows.index_put(inside.nonzero(as_tuple=True), values)
