"""The options of every verb, one model each, and the configuration of the network.

Each model is at once the flags of the command line, the keys of `--config run.yaml` and the argument of the
Python function. Nothing here imports torch.
"""
