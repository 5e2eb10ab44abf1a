"""Short outputs of VASP and Quantum ESPRESSO, H2 in a box, as these programs write them."""

KBAR = "-2.0  -1.0  -4.0  0.4  -0.9  2.5"  # xx yy zz xy yz zx, compression positive


def outcar(steps, *, version="5.4.4", limit=4):
    """An OUTCAR of H2; a step is its number of electronic iterations and what VASP says of their end."""
    text = f" vasp.{version} complex\n POTCAR:    PAW_PBE H 15Jun2001\n POTCAR:    PAW_PBE H 15Jun2001\n"
    text += "   ISPIN  =      1    spin polarized calculation?\n   ions per type =               2\n"
    text += "   k-points           NKPTS =      1   number of bands    NBANDS=      1\n"
    text += f" k-points in reciprocal lattice and weights:\n 0 0 0 1.0\n   NELM   =  {limit};   NELMIN=  2\n"
    for number, (iterations, end) in enumerate(steps):
        for k in range(iterations):
            text += f"--------- Iteration  {number + 1}(  {k + 1})  ---------\n"
        text += f"--------- aborting loop {end} ---------\n  in kB  {KBAR}\n"
        text += "      direct lattice vectors\n 5.0 0.0 0.0\n 0.0 5.0 0.0\n 0.0 0.0 5.0\n"
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n -----\n"
        text += f" 0.0 0.0 0.0 0.0 0.0 {number + 0.5}\n 0.0 0.0 0.8 0.0 0.0 {-number - 0.5}\n -----\n"
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ------\n"
        text += f"  free  energy   TOTEN  =   {-6.4 - number} eV\n\n"
        text += f"  energy  without entropy=  -6.3  energy(sigma->0) =  {-6.35 - number}\n"
    return text


def vasprun(steps, *, limit=4):
    """A vasprun.xml of H2, with the parameters that VASP has for response functions below its own."""
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<kpoints>'
    text += '<varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray>'
    text += "</kpoints>\n"
    text += f'<parameters>\n<i type="int" name="NELM">  {limit}</i>\n<i type="int" name="NELM">  1</i>\n'
    text += "</parameters>\n<atominfo>"
    text += f'<array name="atoms"><set>{2 * "<rc><c>H </c><c>1</c></rc>"}</set></array></atominfo>\n'
    place = '<crystal><varray name="basis"><v>5 0 0</v><v>0 5 0</v><v>0 0 5</v></varray></crystal>'
    place += '<varray name="positions"><v>0 0 0</v><v>0 0 0.16</v></varray>'
    fixed = '<varray name="selective"><v type="logical">F F F</v><v type="logical">T T T</v></varray>'
    text += f'<structure name="initialpos">{place}{fixed}</structure>\n'
    for number, iterations in enumerate(steps):
        energies = f'<i name="e_fr_energy">{-6.4 - number}</i><i name="e_0_energy">{-6.35 - number}</i>'
        loop = f'<scstep>\n<energy><i name="e_fr_energy">{-6.4 - number}</i>'
        loop += f'<i name="e_wo_entrp">-6.3</i><i name="e_0_energy">{-6.35 - number}</i></energy></scstep>\n'
        text += f"<calculation>\n{loop * iterations}<structure>{place}</structure>"
        text += f'<varray name="forces"><v>0 0 {number + 0.5}</v><v>0 0 {-number - 0.5}</v></varray>\n'
        text += '<varray name="stress"><v>-2 0.4 2.5</v><v>0.4 -1 -0.9</v><v>2.5 -0.9 -4</v></varray>\n'
        text += f"<energy>{energies}</energy>\n</calculation>\n"
    return text + "</modeling>\n"


def pw_output(converged):
    """A pw.x output of H2, one step of dynamics for each flag; forces follow also where nothing converged."""
    text = "     Program PWSCF v.7.0 starts on 18Sep2024\n     number of atoms/cell      =            2\n"
    text += "     number of atomic types    =            1\n     celldm(1)=  10.000000  celldm(2)=   0.0\n"
    text += "     crystal axes: (cart. coord. in units of alat)\n"
    for k, row in enumerate(("1.0 0.0 0.0", "0.0 1.0 0.0", "0.0 0.0 1.0")):
        text += f"               a({k + 1}) = (   {row} )\n"
    text += "     site n.     atom                  positions (alat units)\n"
    text += "         1           H   tau(   1) = (   0.0  0.0  0.0  )\n"
    text += "         2           H   tau(   2) = (   0.0  0.0  0.15  )\n"
    for number, good in enumerate(converged):
        if number:
            text += "ATOMIC_POSITIONS (angstrom)\nH 0.0 0.0 0.0\nH 0.0 0.0 0.8\n\n"
        mark = "!" if good else " "
        text += f"{mark}    total energy              =     {-2.3 - number} Ry\n"
        text += f"     convergence {'has been achieved' if good else 'NOT achieved after 99 iterations'}\n"
        text += "     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        text += "     atom    1 type  1   force =     0.0    0.0   0.01\n"
        text += "     atom    2 type  1   force =     0.0    0.0  -0.01\n\n"
        text += "     total   stress  (Ry/bohr**3)                   (kbar)     P=       -3.0\n"
        text += "  -1.0e-5 0.0 0.0     -1.5 0.0 0.0\n   0.0 2.0e-5 0.0     0.0 2.9 0.0\n"
        text += "   0.0 0.0 0.0     0.0 0.0 0.0\n\n"
    return text
