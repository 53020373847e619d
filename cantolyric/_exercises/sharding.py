"""Checkers of lesson 32's exercises."""
