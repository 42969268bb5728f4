"""A loaded model made ready to answer, and no longer to learn: the same encoder with faster parts."""
