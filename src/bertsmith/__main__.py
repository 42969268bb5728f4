"""`python -m bertsmith`, the same as the command `bertsmith`."""

from bertsmith.cli.main import run

run()
