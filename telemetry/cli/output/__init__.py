"""What commands say, and how they say it."""
