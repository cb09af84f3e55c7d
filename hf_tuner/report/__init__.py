"""What a run says of itself: the closing table, report.json, and one self-contained page."""
