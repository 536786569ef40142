"""Wrong inputs from a seed: each breaks one rule, and similar valid inputs break none.

Tables in these files list valid and wrong values, independently of the schemas that they test. To add a kind, write a
file with a function that makes a `Case` from a random generator, and register it in `kinds.py`.
"""
