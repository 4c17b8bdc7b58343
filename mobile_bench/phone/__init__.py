"""Phones: what they are and how they are, and models measured on them."""
