"""Pure functions on NumPy arrays: one case in, numbers out; `intervals` then turns the cases' numbers into a table.

Import from the files (`from somite.metrics.overlap import overlap`): re-exporting here would hide a file behind
the function of the same name.
"""
