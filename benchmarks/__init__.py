"""The benchmarks, one file for each question; asv runs them (see asv.conf.json)."""
