"""Labels of structures: names, units, and errors against them."""
