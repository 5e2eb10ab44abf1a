"""Many structures: one task on each, on any executor, with results on disk as they come."""
