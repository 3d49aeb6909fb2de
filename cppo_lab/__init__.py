"""cppo-lab: which trust region to use when a language model is trained by RL with verifiable rewards."""

__version__ = "0.1.0"
