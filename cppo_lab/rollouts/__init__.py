"""Rollouts and the engines that sample them. Importing the package registers the built-in engines."""

from cppo_lab.rollouts import native_config as native_config
from cppo_lab.rollouts import vllm_config as vllm_config
