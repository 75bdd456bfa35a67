"""How runs went, in a few numbers."""
