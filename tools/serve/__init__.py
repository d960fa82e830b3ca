"""A web page that finds people in an index, which tools.index makes. See docs/index.md."""
