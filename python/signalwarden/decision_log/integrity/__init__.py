"""Tamper evidence: a Merkle tree over the log's lines, checkpoints that sign it, proofs, and who checks them."""
