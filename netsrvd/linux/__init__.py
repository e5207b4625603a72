"""The little that the kernel offers and Python has no name for."""
