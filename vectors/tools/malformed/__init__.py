"""The malformed vectors, one module per section of the rules; `make_malformed.py` beside this package writes them."""
