"""This host: what it is and how it is, and models measured on it."""
