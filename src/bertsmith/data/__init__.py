"""From text files to batches: reading, token shards, sequences, masking, the order of examples."""
