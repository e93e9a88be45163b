"""What changed between two sets of records, and whether it is beyond noise.

``python -m benchmarks.compare BEFORE AFTER``. Everything is read from records; nothing is measured
here.
"""
