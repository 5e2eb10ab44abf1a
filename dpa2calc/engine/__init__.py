"""From a potential and atoms to energies, forces and stress."""
