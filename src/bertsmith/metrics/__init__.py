"""Figures of a model's answers: arrays of truth and answers in, metrics out. No model, no files."""
