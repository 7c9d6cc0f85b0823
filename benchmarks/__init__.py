"""What backs the figures in README.md: run by hand, each ends with one JSON line."""
