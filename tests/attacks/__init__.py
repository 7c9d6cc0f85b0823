"""Attacks on a run: hostile bytes, numbers, schedules, crowds, and failing memory."""
