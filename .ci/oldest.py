"""Print constraints that pin every dependency of setup.cfg to the oldest version that it declares.

    python .ci/oldest.py [--but torch] > oldest.txt

--but leaves a package out: torch's oldest wheel brings 3 GB of CUDA libraries, too much for every run of CI.
"""

import argparse
import configparser
import re
from pathlib import Path


def main() -> None:
    """Print one `name==version` a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--but", nargs="*", default=[])
    left_out = parser.parse_args().but
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    extras = config["options.extras_require"]
    lines = "\n".join(
        [config["options"]["install_requires"], *(extras[e] for e in extras if e not in ("docs", "test"))]
    )
    for name, version in dict(re.findall(r"^([\w-]+)>=([\d.]+)", lines, flags=re.MULTILINE)).items():
        if name not in left_out:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
