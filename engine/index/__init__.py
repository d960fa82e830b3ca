"""An index of the people in pictures and videos: filled once, searched many times. See docs/index.md."""
