"""Wrong inputs from a seed: each breaks one named rule, and its valid neighbors break none.

What is right and wrong stands in tables of these files, written down apart from the schemas that they test. To add a
kind, write a file with a function that makes a `Case` from a random generator, and name it in `kinds.py`.
"""
