"""Errors that programs print as one sentence."""


class UserError(ValueError):
    """A mistake in what a user gave: an option, a file, a dataset.

    The message names the option or file and says what to do. Programs print it as one sentence; every other exception
    but an `OSError` is a bug of the program and keeps its traceback.
    """


class DivergedError(RuntimeError):
    """Too many optimiser steps in a row had losses or gradients that were not finite."""
