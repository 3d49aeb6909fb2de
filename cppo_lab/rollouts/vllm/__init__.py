"""The vLLM engine, in the training process. vLLM is imported only when it is used."""
