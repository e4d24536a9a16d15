"""Configurations of Parsl that `miue sweep --engine parsl --config NAME` can name, to use or to copy and change."""
