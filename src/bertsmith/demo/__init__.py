"""The demo: the whole path from text to a judged classifier, on documentation that every Python carries."""
