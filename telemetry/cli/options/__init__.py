"""What commands take: options and arguments that several of them have."""
