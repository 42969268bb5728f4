"""What a model can be trained for. Each task is one module behind the protocol in `base`."""
