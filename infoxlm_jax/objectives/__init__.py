"""The interface of a training objective, and one file for each of them."""
