"""Packets of protocols that measure: made and read, by both ends."""
