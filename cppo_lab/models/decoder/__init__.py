"""The lab's own forward and backward pass of dense Qwen3 models: packed, without padding, each prompt computed once."""
