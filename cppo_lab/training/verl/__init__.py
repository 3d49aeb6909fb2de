"""Runs trained by verl's workers on Ray: the lab's loop, grader and rules drive verl's engines and rollout servers."""
