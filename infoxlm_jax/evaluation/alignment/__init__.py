"""Word alignment: links between the words of translations, and their error."""
