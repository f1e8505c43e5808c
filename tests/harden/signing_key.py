"""A public key that signs nothing: for specs with repositories."""

SIGNING_KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEZ0AAABYJKwYBBAHaRw8BAQdAkxQmRJLYGvgtFA8cVNo8rGvQ7Rfz0gFJx0eY
=abcd
-----END PGP PUBLIC KEY BLOCK-----
"""
