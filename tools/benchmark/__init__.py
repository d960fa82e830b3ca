"""Measure speed and memory on this machine; see tools/README.md."""
