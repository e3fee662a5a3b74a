"""What is measured, one file per question; asv runs it (see asv.conf.json)."""
