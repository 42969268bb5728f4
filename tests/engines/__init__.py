"""Tests of `bertsmith.engines`."""
