"""Frames of records: read, chosen from, smoothed, clamped, thinned out."""
