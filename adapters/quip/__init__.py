"""QuIP: token states that answer questions."""
