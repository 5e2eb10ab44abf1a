"""docs/maths.md as a program: every formula once more in NumPy, atom by atom, with padding written out.

Slow on purpose, and written from the page alone, so that page and package keep each other right.
"""

from typing import Any

import numpy as np
import pytest
from architectures import TYPE_MAP, make_potential
from ase import Atoms
from ase.build import bulk

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.model.config import DPA1Config, DPA2Config

SHIFT = 20.0
Array = np.ndarray[Any, Any]


class Page:
    """The formulas, with the weights of a potential by name."""

    def __init__(self, name: str):
        self.potential = make_potential(name)
        self.config = self.potential.config.descriptor
        self.weights = {k: v.numpy() for k, v in self.potential.state_dict().items()}

    def w(self, name: str) -> Array:
        return self.weights[f"descriptor.{name}"]

    # section 2
    def net(self, name: str, x: Array, *, end: bool = False) -> Array:
        count = len([k for k in self.weights if k.startswith(f"{name}.layers.") and k.endswith("matrix")])
        for n in range(count):
            matrix, bias = (self.weights[f"{name}.layers.{n}.{part}"] for part in ("matrix", "bias"))
            if end and n == count - 1:
                return x @ matrix + bias
            z = np.tanh(x @ matrix + bias) * self.weights.get(f"{name}.layers.{n}.idt", 1.0)
            copies = {len(x): 1, 2 * len(x): 2}.get(len(z), 0)
            x = z + np.tile(x, copies) if copies else z
        return x

    def type_embedding(self) -> Array:
        matrix = self.w("type_embedding.layer.matrix")
        n, width = matrix.shape
        return matrix + (np.eye(n) if width == n else np.tile(np.eye(n), 2) if width == 2 * n else 0.0)

    # section 1
    def rows(self, part: str, center: int, near: Array, config: Any, n_slots: int) -> tuple[Array, Array]:
        """(n_slots, 4) normalised rows and (n_slots,) switches; padding last."""
        rows, switch = np.zeros((n_slots, 4)), np.zeros(n_slots)
        for j, d in enumerate(near):
            r = np.linalg.norm(d)
            u = np.clip((r - config.cutoff_smooth) / (config.cutoff - config.cutoff_smooth), 0, 1)
            switch[j] = 1 + u**3 * (-6 * u**2 + 15 * u - 10)
            rows[j] = switch[j] * np.array([1 / r, *(d / r**2)])
        mean, std = (self.w(f"{part}environment.{which}")[center] for which in ("mean", "std"))
        return (rows - mean) / std, switch

    # section 3
    def pair(self, name: str, s: float, first: Array, second: Array, one_side: bool, factor: float) -> Array:
        types = first if one_side else np.concatenate([first, second])
        if f"descriptor.{name}.strip.layers.0.matrix" in self.weights:
            scalar = self.net(f"descriptor.{name}.net", np.array([s]))
            return scalar * (1 + factor * self.net(f"descriptor.{name}.strip", types))
        return self.net(f"descriptor.{name}.net", np.concatenate([[s], types]))

    def repinit(self, part: str, center: int, types: Array, near: Array, c: Any, smooth: bool) -> Array:
        tebd, n = self.type_embedding(), len(near)
        rows, switch = self.rows(part, center, near, c, c.nsel)
        g = np.zeros((c.nsel, c.neuron[-1]))
        for j in range(n):
            factor = switch[j] if smooth else 1.0
            g[j] = self.pair(
                f"{part}embedding", rows[j, 0], tebd[types[j]], tebd[center], c.type_one_side, factor
            )
        for layer in range(getattr(c, "attn_layer", 0)):
            g = self.gated(f"{part}attention.{layer}", g, switch, near, c)
        d = rows.T @ g / c.nsel
        return (d.T @ d[:, : c.axis_neuron]).ravel()

    # section 8
    def gated(self, name: str, g: Array, w: Array, near: Array, c: DPA1Config) -> Array:
        q, k, v = np.split(g @ self.w(f"{name}.in_proj.matrix") + self.w(f"{name}.in_proj.bias"), 3, axis=1)
        if c.normalize:
            q, k, v = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, k, v))
        scale = c.temperature if c.temperature is not None else 1 / np.sqrt(c.attn * c.scaling_factor)
        both = np.outer(w, w)
        a = np.exp((scale * q @ k.T + SHIFT) * both - SHIFT)
        a = a / a.sum(axis=1, keepdims=True) * both
        if c.attn_dotr:
            unit = np.zeros((len(g), 3))
            unit[: len(near)] = near / np.linalg.norm(near, axis=1, keepdims=True)
            a = a * (unit @ unit.T)
        out = (a @ v) @ self.w(f"{name}.out_proj.matrix") + self.w(f"{name}.out_proj.bias")
        return self.norm(f"{name}.norm", g + out, c.ln_eps)

    def norm(self, name: str, x: Array, eps: float) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return scaled * self.w(f"{name}.weight") + self.w(f"{name}.bias")

    # section 4
    def three_body(self, center: int, types: Array, near: Array, c: DPA2Config) -> Array:
        t, tebd = c.three_body, self.type_embedding()
        assert t is not None
        rows, switch = self.rows("three_body.", center, near, t, t.nsel)
        total = np.zeros(t.neuron[-1])
        for j in range(len(near)):
            for k in range(len(near)):
                angle = rows[j, 1:] @ rows[k, 1:]
                factor = switch[j] * switch[k] if c.smooth else 1.0
                pair = ("three_body.embedding", angle, tebd[types[j]], tebd[types[k]])
                total += angle * self.pair(*pair, False, factor)
        return total / t.nsel**2

    # sections 5 and 6
    def dpa2(self, types: Array, lists: list[tuple[Array, Array]]) -> Array:
        c, tebd = self.config, self.type_embedding()
        near = [
            {
                key: (owners[r <= part.cutoff], d[r <= part.cutoff])
                for key, part in (("i", c.repinit), ("t", c.three_body), ("f", c.repformer))
                if part is not None
            }
            for owners, d in lists
            for r in [np.linalg.norm(d, axis=1)]
        ]
        g1 = []
        for center, n in zip(types, near):
            x = self.repinit("repinit.", center, types[n["i"][0]], n["i"][1], c.repinit, c.smooth)
            if c.three_body is not None:
                x = np.concatenate([x, self.three_body(center, types[n["t"][0]], n["t"][1], c)])
            if "descriptor.g1_shape.matrix" in self.weights:
                x = x @ self.w("g1_shape.matrix")
            if c.add_tebd_to_repinit_out:
                x = x + tebd[center] @ self.w("tebd_transform.matrix")
            g1.append(np.tanh(x))
        f, owners = c.repformer, [n["f"][0] for n in near]
        env = [self.rows("repformer.", center, n["f"][1], f, f.nsel) for center, n in zip(types, near)]
        embed = [self.w(f"repformer.g2_embedding.{part}") for part in ("matrix", "bias")]
        g2 = [np.tanh(rows[:, :1] @ embed[0] + embed[1]) for rows, _ in env]
        h2 = [rows[:, 1:] for rows, _ in env]
        for number in range(f.nlayers):
            old = np.array(g1)
            new = [self.layer(number, old, i, g2[i], h2[i], env[i][1], owners[i]) for i in range(len(types))]
            g1, g2, h2 = ([item[k] for item in new] for k in range(3))
        assert c.concat_output_tebd
        return np.concatenate([np.array(g1), tebd[types]], axis=1)

    def layer(
        self, number: int, g1: Array, i: int, g2: Array, h2: Array, s: Array, owners: Array
    ) -> tuple[Array, Array, Array]:
        c, p, n = self.config.repformer, f"repformer.layers.{number}.", len(owners)
        last, slots = number == c.nlayers - 1, c.nsel
        around = np.zeros((slots, g1.shape[1]))  # g1_j, padding 0
        around[:n] = g1[owners]

        def updated(x: Array, updates: list[Array], which: str) -> Array:
            count = len(updates)
            if c.update_style == "res_avg":
                return (x + sum(updates)) / np.sqrt(count + 1)
            if c.update_style == "res_incr":
                return x + sum(updates) / np.sqrt(count) if count else x
            return x + sum(self.w(f"{p}{which}_residual.{k}") * u for k, u in enumerate(updates))

        def sym(x: Array) -> Array:
            norm = 1 / np.sqrt(slots) if c.use_sqrt_nnei else 1 / slots
            moments = norm * (h2 * s[:, None]).T @ x  # (3, d)
            return (moments[:, : c.axis_neuron].T @ moments / 3).ravel()

        # a1 to a4
        updates, cat = [], []
        if c.g1_out_mlp:
            updates.append(np.tanh(g1[i] @ self.w(f"{p}g1_self_mlp.matrix") + self.w(f"{p}g1_self_mlp.bias")))
        else:
            cat.append(g1[i])
        proj = self.w(f"{p}proj_g1g2.matrix")
        if c.g1_out_conv:
            updates.append(((g2 @ proj) * around * s[:, None]).sum(axis=0) / slots)
        else:
            cat.append((g2 * (around @ proj) * s[:, None]).sum(axis=0) / slots)
        cat += [sym(g2)] if c.update_g1_has_grrg else []
        cat += [sym(around)] if c.update_g1_has_drrd else []
        inner = np.concatenate(cat)
        updates.append(np.tanh(inner @ self.w(f"{p}linear1.matrix") + self.w(f"{p}linear1.bias")))
        if c.update_g1_has_attn:
            updates.append(self.local_attention(p, g1[i], around, s, c))
        new_g1 = updated(g1[i], updates, "g1")
        if last:
            return new_g1, g2, h2
        # p1 to p4
        updates, moves = [np.tanh(g2 @ self.w(f"{p}linear2.matrix") + self.w(f"{p}linear2.bias"))], []
        if c.update_g2_has_g1g1:
            updates.append((g1[i] * around * s[:, None]) @ self.w(f"{p}proj_g1g1g2.matrix"))
        if c.update_g2_has_attn or c.update_h2:
            weights = self.pair_attention(p, g2, h2, s, c)
            if c.update_g2_has_attn:
                v = (g2 @ self.w(f"{p}attn2.mapv.matrix")).reshape(slots, -1, c.attn2_nhead)
                mixed = np.einsum("hjk,kdh->jdh", weights, v).reshape(slots, -1)
                mixed = mixed @ self.w(f"{p}attn2.head_map.matrix") + self.w(f"{p}attn2.head_map.bias")
                updates.append(self.norm(f"{p}attn2.norm", mixed, c.ln_eps))
            if c.update_h2:
                moves.append(np.einsum("hjk,kx,h->jx", weights, h2, self.w(f"{p}attn2.ev.matrix")[:, 0]))
        return new_g1, updated(g2, updates, "g2"), updated(h2, moves, "h2") if moves else h2

    def local_attention(self, p: str, own: Array, around: Array, s: Array, c: Any) -> Array:
        q = (own @ self.w(f"{p}loc_attn.mapq.matrix")).reshape(-1, c.attn1_nhead)
        kv = (around @ self.w(f"{p}loc_attn.mapkv.matrix")).reshape(len(s), -1, c.attn1_nhead)
        k, v = kv[:, : c.attn1_hidden], kv[:, c.attn1_hidden :]
        a = np.exp((np.einsum("dh,jdh->jh", q, k) / np.sqrt(c.attn1_hidden) + SHIFT) * s[:, None] - SHIFT)
        a = a / a.sum(axis=0) * s[:, None]
        out = np.einsum("jh,jdh->hd", a, v).ravel()  # the heads one after the other
        return out @ self.w(f"{p}loc_attn.head_map.matrix") + self.w(f"{p}loc_attn.head_map.bias")

    def pair_attention(self, p: str, g2: Array, h2: Array, s: Array, c: Any) -> Array:
        qk = (g2 @ self.w(f"{p}attn2.mapqk.matrix")).reshape(len(s), c.attn2_hidden, 2 * c.attn2_nhead)
        q, k = qk[:, :, : c.attn2_nhead], qk[:, :, c.attn2_nhead :]
        overlap, both = h2 @ h2.T, np.outer(s, s)
        a = np.einsum("jdh,kdh->hjk", q, k) / np.sqrt(c.attn2_hidden)
        a = a * overlap if c.attn2_has_gate else a
        a = np.exp((a + SHIFT) * both - SHIFT)
        return a / a.sum(axis=2, keepdims=True) * both * overlap / np.sqrt(3)

    # section 8
    def deeppot_se(self, center: int, types: Array, near: Array) -> Array:
        c, total = self.config, np.zeros((4, self.config.neuron[-1]))
        rows, _ = self.rows("", center, near, c, len(near) + 1)  # the last one is padding
        for kind in range(len(TYPE_MAP)):
            net = f"descriptor.nets.{kind if c.type_one_side else center + len(TYPE_MAP) * kind}"
            of_kind = np.flatnonzero(types == kind)
            for j in of_kind:
                total += np.outer(rows[j], self.net(net, rows[j, :1]))
            total += (c.sel[kind] - len(of_kind)) * np.outer(rows[-1], self.net(net, rows[-1, :1]))
        d = total / sum(c.sel)
        return (d.T @ d[:, : c.axis_neuron]).ravel()

    # section 7
    def energies(self, types: Array, lists: list[tuple[Array, Array]]) -> Array:
        c = self.config
        if isinstance(c, DPA2Config):
            descriptor = self.dpa2(types, lists)
        else:
            near = [(t, types[owners], d) for t, (owners, d) in zip(types, lists)]
            if isinstance(c, DPA1Config):
                smooth, tebd = c.smooth_type_embedding, self.type_embedding()
                found = [self.repinit("repinit.", *n, c, smooth) for n in near]
                descriptor = np.concatenate([np.array(found), tebd[types]], axis=1)
            else:
                descriptor = np.array([self.deeppot_se(*n) for n in near])
        bias = sum(self.weights[f"heads.0.{name}.values"] for name in ("bias_atom_e", "out_bias"))
        nets = [0] * len(types) if isinstance(c, DPA1Config | DPA2Config) else types
        fitted = [self.net(f"heads.0.nets.{k}", x, end=True)[0] for k, x in zip(nets, descriptor)]
        return np.array(fitted) + bias[types]


def neighbours(atoms: Atoms, cutoff: float) -> list[tuple[Array, Array]]:
    """Owners and vectors of all images within the cutoff of each atom, by brute force."""
    steps = np.array(list(np.ndindex(5, 5, 5))) - 2
    shifts = steps[~(steps * ~atoms.pbc).any(axis=1)] @ atoms.cell.array
    found = []
    for i, center in enumerate(atoms.positions):
        vectors = atoms.positions[:, None] + shifts[None] - center  # (n, images, 3)
        r = np.linalg.norm(vectors, axis=2)
        r[i, (shifts == 0).all(axis=1)] = np.inf
        order = [(j, k) for j, k in zip(*np.nonzero(r <= cutoff))]
        order.sort(key=lambda pair: r[pair])
        owners = np.array([j for j, _ in order], dtype=int)
        found.append((owners, np.array([vectors[pair] for pair in order]).reshape(-1, 3)))
    return found


def structures() -> dict[str, Atoms]:
    cluster = Atoms(
        "OHHCuO", [[0, 0, 0], [0.9, 0.4, 0.1], [-0.8, 0.5, 0.3], [0.3, 2.1, 0.4], [1.9, 1.5, -1.2]]
    )
    crystal = bulk("Cu", a=3.9, cubic=True)
    crystal.symbols[1:3] = ["O", "H"]
    crystal.rattle(0.1, rng=np.random.default_rng(3))
    return {"cluster": cluster, "crystal": crystal}


NAMES = ("dpa2-all-updates", "dpa2-paper", "dpa2-small", "dpa1-attention", "dpa1-l0", "deeppot-se")


@pytest.mark.parametrize("kind", ["cluster", "crystal"])
@pytest.mark.parametrize("name", NAMES)
def test_the_page_gives_the_numbers_of_the_package(name, kind):
    page, atoms = Page(name), structures()[kind]
    cutoff = page.potential.config.cutoff
    types = np.array([TYPE_MAP.index(symbol) for symbol in atoms.symbols])
    lists = neighbours(atoms, cutoff)
    atoms.calc = DPA2Calculator(page.potential, dtype="float64", device="cpu")
    np.testing.assert_allclose(
        page.energies(types, lists), atoms.get_potential_energies(), rtol=0, atol=1e-10
    )
