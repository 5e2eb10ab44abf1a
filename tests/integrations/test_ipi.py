"""i-PI: the driver's numbers, the socket's protocol, and path integrals in the real program."""

import importlib.util
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from emt_cases import with_emt

from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.integrations import ipi_driver
from dpa2calc.integrations.ipi_driver import DPA2Driver, serve


def water(seed=0):
    """Eight molecules in a cell without right angles."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=[[6.4, 0, 0], [0.5, 6.3, 0], [0.3, -0.4, 6.5]], pbc=True)
    for place in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.rotate(float(rng.uniform(0, 360)), rng.normal(size=3))
        one.translate(np.array(place) / 2 @ atoms.cell.array + 0.5)
        atoms += one
    atoms.rattle(0.02, seed=seed)
    return atoms


@pytest.fixture
def template(tmp_path):
    write(tmp_path / "water.extxyz", water())
    return tmp_path / "water.extxyz"


@pytest.mark.parametrize("compress", [True, False])  # bead by bead, and all in one batch
def test_the_driver_gives_the_calculators_numbers_in_atomic_units(template, compress):
    driver = DPA2Driver(template, "student-water", dtype="float64", compress=compress, verbosity="high")
    calculator = DPA2Calculator("student-water", dtype="float64", compress=compress)
    beads = [water(seed) for seed in range(3)]
    cells = [atoms.cell.array.T / units.Bohr for atoms in beads]
    for _ in range(2):  # lists of neighbours are kept between calls
        found = driver(cells, [atoms.positions / units.Bohr for atoms in beads])
        for atoms, (energy, forces, virial, extras) in zip(beads, found):
            atoms.calc = calculator
            assert energy * units.Hartree == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(forces * units.Hartree / units.Bohr, atoms.get_forces(), atol=1e-9)
            stress = -virial * units.Hartree / atoms.get_volume()
            np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-12)
            assert extras == ""
            atoms.positions += 0.01
    single = driver(cells[0], (beads[0].positions - 0.01) / units.Bohr)
    assert single[0] == pytest.approx(found[0][0], abs=1e-12)


def test_a_template_must_say_what_is_periodic_and_fit(tmp_path, template):
    write(tmp_path / "bare.xyz", molecule("H2O"), format="xyz")
    with pytest.raises(ConfigError, match="has no cell, so it does not say"):
        DPA2Driver(tmp_path / "bare.xyz", "student-water")
    driver = DPA2Driver(template, "student-water")
    with pytest.raises(StructureError, match="i-PI sent 3 atoms, and the structure here has 24"):
        driver(np.eye(3), np.zeros((3, 3)))


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("unix", [True, False])
def test_serve_answers_ases_socket_calculator(unix, tmp_path):
    where = {"unixsocket": f"dpa2calc-{tmp_path.name}"} if unix else {"port": free_port()}
    mine, theirs = water(), water()
    theirs.calc = EMT()
    mine.calc = EMT()
    answered = []
    thread = threading.Thread(target=lambda: answered.append(serve(mine, **where, patience=10)))
    thread.start()
    atoms = water(3)
    with SocketIOCalculator(**where) as calculator:
        atoms.calc = calculator
        for seed in (3, 4):
            atoms.positions = theirs.positions = water(seed).positions
            assert atoms.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(atoms.get_forces(), theirs.get_forces(), atol=1e-9)
            np.testing.assert_allclose(atoms.get_stress(), theirs.get_stress(), atol=1e-9)
    thread.join(30)
    assert answered == [2]


def test_serve_connects_again_and_says_so(caplog):
    port, mine = free_port(), water()
    mine.calc = EMT()
    answered = []
    with caplog.at_level("INFO"):
        thread = threading.Thread(target=lambda: answered.append(serve(mine, port=port, patience=20)))
        thread.start()
        for last in (False, True):
            with socket.create_server(("localhost", port)) as server:
                connection, _ = server.accept()
                with connection:
                    protocol = ipi_driver.IPIProtocol(connection)
                    protocol.calculate(mine.positions.copy(), mine.cell.array.copy())
                    if last:
                        protocol.end()
        thread.join(30)
    assert answered == [2]
    text = caplog.text
    assert "connection lost after 1 structures" in text and "the program has ended; 2 structures" in text


def said_to(atoms, talk):
    """What `serve` raises when a program on its port talks to it like that; None for nothing."""
    port, raised = free_port(), []

    def run():
        try:
            serve(atoms, port=port, patience=5)
        except ConfigError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    with socket.create_server(("localhost", port)) as server:
        thread.start()
        connection, _ = server.accept()
        with connection:
            found = talk(ipi_driver.IPIProtocol(connection))
            thread.join(30)
    return raised[0] if raised else None, found


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"GET / HTTP/1", "the program sent 'GET / HTTP/1'"),
        ("ÅÅÅÅÅÅ".encode(), "bytes that make no sense .*ascii"),
        (b"GETFORCE    ", "the program sent 'GETFORCE'"),
        (b"POSDATA     " + np.full(18, np.nan).tobytes(), r"bytes that make no sense \(not finite\)"),
        (
            b"POSDATA     " + np.eye(3).tobytes() * 2 + np.int32(-7).tobytes(),
            "bytes that make no sense .*negative",
        ),
    ],
)
def test_another_protocol_is_an_error_in_words(sent, message):
    error, _ = said_to(with_emt(water()), lambda protocol: protocol.socket.sendall(sent))
    assert error and re.search(f"{message}.*does something else listen there", error)


def test_a_structure_without_a_cell_is_not_taken_for_a_molecule_where_a_cell_is_sent():
    atoms = with_emt(molecule("H2O"))

    def talk(protocol):
        with pytest.raises((OSError, AssertionError)):  # gone
            protocol.calculate(atoms.positions, np.eye(3) * 9)

    error, _ = said_to(atoms, talk)
    assert error and "the program sends a cell, and the structure here has none" in error
    lonely, reference = with_emt(molecule("H2O")), with_emt(molecule("H2O"))  # as ASE sends a molecule

    def whole(protocol):
        found = protocol.calculate(reference.positions, np.zeros((3, 3)))
        protocol.end()
        return found

    error, found = said_to(lonely, whole)
    assert error is None and found["energy"] == pytest.approx(reference.get_potential_energy(), abs=1e-9)
    assert not found["virial"].any()


def test_the_virial_of_calculators_that_compute_what_they_are_asked_for():
    atoms, reference = water(), with_emt(water())
    atoms.calc = SumCalculator([EMT()])

    def talk(protocol):
        found = protocol.calculate(reference.positions, reference.cell.array)
        protocol.end()
        return found

    error, found = said_to(atoms, talk)
    stress = -found["virial"] / reference.get_volume()
    assert error is None and np.abs(stress).max() > 1e-3
    np.testing.assert_allclose(stress, reference.get_stress(voigt=False), atol=1e-9)


@pytest.mark.parametrize("wrong", [{"port": 0}, {"port": 99999}, {"patience": -1.0}, {"patience": np.nan}])
def test_what_is_no_port_and_no_time_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} = .* is not allowed"):
        serve(Atoms("H", calculator=EMT()), **wrong)


def test_nobody_listens():
    mine = with_emt(water())
    with pytest.raises(
        ConfigError, match=r"nobody listens at localhost:1 after 0 s \(.*refused\); start i-PI"
    ):
        serve(mine, port=1, patience=0)


_INPUT = """
<simulation verbosity='low'>
  <output prefix='run'>
    <properties filename='out' stride='1'> [step, potential, kinetic_cv, conserved, pressure_cv] </properties>
  </output>
  <total_steps> 3 </total_steps>
  <prng><seed> 7 </seed></prng>
  {forcefield}
  <system>
    <initialize nbeads='4'>
      <file mode='ase'> water.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='dpa2'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'> 0.25 </timestep></dynamics>
    </motion>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
  </system>
</simulation>
"""
_DIRECT = """
  <ffdirect name='dpa2'>
    <pes> custom </pes> <pes_path> {path} </pes_path> <batch_size> 4 </batch_size>
    <parameters> {{ template: water.extxyz, model: student-water, dtype: float64 }} </parameters>
  </ffdirect>
"""
_SOCKET = (
    "<ffsocket mode='unix' name='dpa2'><address> {address} </address><latency> 1e-3 </latency></ffsocket>"
)


def run_ipi(folder, forcefield):
    folder.mkdir()
    write(folder / "water.extxyz", water())
    (folder / "input.xml").write_text(_INPUT.format(forcefield=forcefield))
    program = Path(sys.executable).parent / "i-pi"
    return subprocess.Popen(
        [program, "input.xml"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process, folder):
    text = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 0, text[-2000:]
    return np.loadtxt(folder / "run.out")


@pytest.mark.skipif(importlib.util.find_spec("ipi") is None, reason="i-PI is not installed (PyPI: ipi)")
def test_path_integrals_in_the_real_program(tmp_path):
    """Four beads: the first energy is that of the calculator, energy is conserved, both ways agree."""
    folder = tmp_path / "direct"
    direct = finish(run_ipi(folder, _DIRECT.format(path=ipi_driver.__file__)), folder)
    atoms = water()
    atoms.calc = DPA2Calculator("student-water", dtype="float64")
    assert direct[0, 1] * units.Hartree == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert np.ptp(direct[:, 3]) * units.Hartree < 5e-3 * len(atoms)
    folder = tmp_path / "socket"
    address = f"dpa2calc-{tmp_path.name}"
    program = run_ipi(folder, _SOCKET.format(address=address))
    while not Path(f"/tmp/ipi_{address}").exists() and program.poll() is None:
        time.sleep(0.1)
    serve(atoms, unixsocket=address, patience=2)
    np.testing.assert_allclose(finish(program, folder), direct, rtol=1e-6, atol=1e-9)
