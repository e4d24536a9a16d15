"""Configurations of Parsl that `miue sweep --config NAME` can name, to use or to copy and change."""
