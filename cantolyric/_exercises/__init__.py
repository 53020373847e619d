"""Checkers of the exercises, one file a lesson; each `check_…` takes the reader's function and says what is wrong, or that all is well."""
