"""A page that shows what test runs found, for researchers: curves, errors and ranking lists of one or more networks."""
