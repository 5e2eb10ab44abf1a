"""Command line of dpa2calc, one small file a verb."""
