"""Numbers of the paper (arXiv 2312.15492): RMSE of energies in meV/atom and of forces in meV/Å."""

from __future__ import annotations

# Table S3. set: thousands of effective steps, energy single-task, multi-task, force single-task, multi-task
TABLE_S3: dict[str, tuple[int, float, float, float, float]] = {
    "Alloy": (1212, 16.4, 36.5, 123.9, 169.5),
    "Cathode-P": (606, 1.2, 3.3, 36.6, 39.8),
    "Cluster-P": (606, 33.2, 34.4, 169.9, 162.5),
    "Drug": (1212, 11.9, 20.6, 117.6, 128.9),
    "FerroEle-P": (606, 0.9, 4.4, 34.9, 44.2),
    "OC2M": (1212, 36.0, 29.3, 175.0, 157.6),
    "SSE-PBE-P": (606, 1.5, 2.1, 54.8, 64.0),
    "SemiCond": (606, 6.6, 6.5, 132.8, 131.9),
    "H2O-PD": (606, 0.6, 3.2, 31.0, 39.7),
    "AgAu-PBE": (121, 16.7, 9.4, 32.5, 28.2),
    "AlMgCu": (182, 11.4, 4.9, 33.9, 23.4),
    "Cu": (61, 3.6, 3.6, 22.7, 18.2),
    "Sn": (61, 12.5, 24.8, 75.6, 69.7),
    "Ti": (61, 26.2, 16.3, 158.5, 112.4),
    "V": (61, 18.9, 13.9, 133.2, 110.2),
    "W": (61, 20.6, 24.6, 176.1, 157.9),
    "C12H26": (61, 92.5, 62.5, 894.4, 710.6),
    "HfO2": (61, 2.4, 3.9, 107.5, 102.8),
}
S3_AVERAGE = (14.9, 18.6, 111.1, 116.3)

# Table 2. (downstream, pre-training set): data deviation, MACE (MPtrj), DPA-2 (MPtrj), single-, multi-task;
# the first five for energies, the other five for forces.
TABLE_2: dict[tuple[str, str], tuple[float, ...]] = {
    ("AgAu-PBED3", "AgAu-PBE"): (906.9, 1812.8, 268.9, 222.9, 192.3, 878.0, 683.2, 293.3, 236.9, 63.6),
    ("AlMgCu-D", "AlMgCu"): (383.8, 33.8, 32.0, 254.3, 41.2, 1229.5, 240.1, 245.3, 663.7, 111.8),
    ("AlMgCu-D", "Alloy"): (383.8, 33.8, 32.0, 74.9, 48.4, 1229.5, 240.1, 245.3, 122.3, 112.8),
    ("ANI-1x", "Drug"): (198.9, 52.3, 61.7, 67.2, 56.6, 2124.6, 636.1, 700.1, 738.7, 346.7),
    ("Cathode-D", "Cathode-P"): (42.2, 15.8, 29.7, 39.8, 43.8, 641.9, 288.4, 613.9, 339.7, 273.9),
    ("Cluster-D", "Cluster-P"): (636.0, 323.7, 262.7, 41.4, 40.5, 3605.4, 2230.8, 1193.6, 238.4, 190.5),
    ("FerroEle-D", "FerroEle-P"): (43.0, 12.5, 14.5, 6.3, 3.9, 881.3, 191.3, 194.2, 282.7, 115.1),
    ("H2O-DPLR", "H2O-PD"): (15.6, 2.1, 2.0, 9.1, 9.3, 825.2, 94.4, 99.7, 263.5, 263.4),
    ("H2O-H2O", "H2O-PD"): (47.0, 4.9, 7.2, 4.9, 4.7, 1941.0, 381.0, 382.7, 58.8, 64.4),
    ("H2O-PBE0TS-MD", "H2O-PD"): (3.3, 1.1, 1.5, 0.5, 0.6, 816.1, 330.8, 314.4, 37.6, 40.8),
    ("H2O-SCAN0", "H2O-PD"): (12.6, 3.2, 3.8, 1.1, 0.7, 2163.2, 387.5, 385.2, 409.2, 162.9),
    ("In2Se3", "SemiCond-P"): (120.5, 31.9, 24.5, 160.6, 38.9, 611.1, 190.2, 188.0, 1544.1, 341.6),
    ("SemiCond-D", "SemiCond-P"): (587.6, 49.8, 70.9, 486.2, 175.7, 1755.4, 470.7, 534.9, 1439.4, 439.3),
    ("SSE-PBE-D", "SSE-PBE-P"): (79.0, 33.7, 39.4, 40.7, 6.2, 789.5, 222.1, 249.9, 635.6, 162.4),
    ("SSE-PBESol", "SSE-PBE-P"): (84.3, 32.5, 37.4, 26.1, 8.3, 810.9, 231.8, 260.4, 425.0, 115.3),
    ("Transition-1x", "Drug"): (139.8, 56.4, 55.1, 48.2, 45.8, 368.1, 518.6, 618.3, 1298.6, 363.8),
}
TABLE_2_AVERAGE = (121.4, 104.0, 68.3, 100.2, 50.1, 1405.4, 575.6, 516.6, 628.0, 238.8)

# Table S5: what the average errors over all sets rise by when the part is removed, energy and force.
# The paper removes them one after the other, left to right, in each channel.
TABLE_S5: dict[str, tuple[float, float]] = {
    "conv": (5.1, 41.2),
    "sym_f": (0.7, 10.4),
    "sym_g": (17.1, 51.3),
    "local_attn": (14.6, 58.4),
    "prod_f": (4.6, 21.7),
    "gate": (4.7, 34.6),
    "attn": (0.6, 14.1),
}
