"""Checkers for lesson 33."""
