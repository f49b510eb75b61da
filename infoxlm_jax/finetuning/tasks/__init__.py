"""Tasks: what is read, trained and scored."""
