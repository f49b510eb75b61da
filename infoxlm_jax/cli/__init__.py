"""Console scripts: export, encode, import, inspect data, train a tokenizer."""
