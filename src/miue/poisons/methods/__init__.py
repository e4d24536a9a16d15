"""The methods, a file each, named as they are."""
