"""A page in the browser for efface: it knows no method by name and offers all that are installed."""
