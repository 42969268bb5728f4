"""The command line: verbs, flags, errors as one line, exit codes."""
