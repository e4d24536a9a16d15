"""What lasts: files that are whole or not there, a cache of results, checkpoints, and where a number comes from."""
