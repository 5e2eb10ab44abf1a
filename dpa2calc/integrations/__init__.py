"""Other programs, one small file each; none of them is needed by this package."""
