"""Labels of boxes, one convention from the annotation files to the OIM loss.

Identities are 1 ... P. The two values below can never collide with one, unlike the 5555 of earlier code bases, which is
a valid identity as soon as a dataset has that many people.
"""

BACKGROUND = 0
"""A sampled box that shows no person."""

UNLABELLED = -1
"""A person without identity: positive for detection, a negative of every identity in the OIM loss."""
