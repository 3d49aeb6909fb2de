"""PyTorch, imported when it is first computed with.

A rule's module is read whenever a configuration is: for the names of its rules, their parameters and bounds. PyTorch,
which takes over a second to import, is needed only once a rule is applied.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
else:

    class Tensor:
        """Stands for torch.Tensor in annotations and type aliases."""

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("torch"), name)
            # The next access finds it here.
            setattr(self, name, value)
            return value

    torch = _Torch()

__all__ = ["Tensor", "torch"]
