"""Files that appear whole, belong to one piece of work, and are written by one process at a time."""
