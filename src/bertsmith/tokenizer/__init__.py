"""WordPiece: count words, train a vocabulary, write and load a tokenizer directory."""
