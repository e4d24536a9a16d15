"""Experiments: trials, how they are measured, planned, kept, judged, tabled and drawn."""
