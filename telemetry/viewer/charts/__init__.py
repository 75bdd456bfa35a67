"""Charts of metrics: worked out once, drawn as a picture or with characters."""
