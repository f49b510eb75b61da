"""The encoder, its heads, pooling, and the sharding of all arrays."""
