"""vLLM as the rollout engine, in the training process. Nothing here imports vLLM before it is asked for."""
