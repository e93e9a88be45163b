"""Speed, measured with pytest-benchmark; run by ``make throughput``, never asserted in a test."""
