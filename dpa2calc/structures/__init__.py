"""From atoms to neighbours and graphs."""
