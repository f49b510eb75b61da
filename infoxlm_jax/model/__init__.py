"""The encoder, its heads, and where its arrays lie on a device mesh."""
