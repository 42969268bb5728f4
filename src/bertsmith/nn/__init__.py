"""The parts of a Transformer encoder, each a few lines of plain torch."""
