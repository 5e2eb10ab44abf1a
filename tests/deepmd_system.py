"""Labelled frames as a folder of deepmd-kit's."""

import numpy as np


def write_system(folder, frames, *, mixed=False, pbc=True, virial=True):
    """One set of frames: of equal elements or of mixed types, periodic or not, with the virial or without."""
    part = folder / "set.000"
    part.mkdir(parents=True)
    symbols = sorted({s for f in frames for s in f.symbols})
    (folder / "type_map.raw").write_text("\n".join(symbols) + "\n")
    types = np.array([[symbols.index(s) for s in f.symbols] for f in frames])
    (folder / "type.raw").write_text("\n".join("0" if mixed else str(t) for t in types[0]) + "\n")
    if mixed:
        np.save(part / "real_atom_types.npy", types)
    np.save(part / "coord.npy", np.array([f.positions.ravel() for f in frames]))
    np.save(part / "energy.npy", np.array([[f.get_potential_energy()] for f in frames]))
    np.save(part / "force.npy", np.array([f.get_forces().ravel() for f in frames]))
    if pbc:
        np.save(part / "box.npy", np.array([f.cell.array.ravel() for f in frames]))
    else:
        (folder / "nopbc").touch()
    if virial:
        virials = [-f.get_volume() * f.get_stress(voigt=False).ravel() for f in frames]
        np.save(part / "virial.npy", np.array(virials))
    return folder
