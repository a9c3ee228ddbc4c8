"""InBedder: the embedding is the expected answer to an instruction."""
