"""The results of a run as JSON, tables, figures and a report."""
