"""Rollouts and the engines that sample them."""
