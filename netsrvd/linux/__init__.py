"""Kernel interfaces that Python lacks."""
