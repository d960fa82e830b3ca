"""Finding a person in photos: what demo.py does."""
