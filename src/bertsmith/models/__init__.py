"""Whole networks, assembled from `nn`."""
