"""What a model can do: sentence retrieval, reports and figures."""
