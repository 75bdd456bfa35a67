"""Recorded gradient norms, and what clippers make of them."""
