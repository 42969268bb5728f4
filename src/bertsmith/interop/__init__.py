"""Checkpoints of others, as tables: which of their tensors makes which of ours. Data, and its interpreter."""
