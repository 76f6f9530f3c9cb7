"""One parser for a while, inputs guided by what they reach: `python -m reliability.fuzz_parsers NAME SECONDS [CORPUS]`.

What is found that reaches more is written to CORPUS. It ends with an error at the first input that makes the parser
raise anything but its own refusals, or takes longer than 5 s.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ctweb", "reliability"]):
    from reliability.parsers import PARSERS

SEEDS = Path(__file__).with_name("corpus")


def main() -> None:
    name, seconds, *corpus = sys.argv[1:]
    dictionary = SEEDS / f"{name}.dict"
    arguments = [sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=2048",
                 "-print_final_stats=1", "-verbosity=0" if not corpus else "-verbosity=1"]  # fmt: skip
    if dictionary.exists():
        arguments.append(f"-dict={dictionary}")
    atheris.Setup([*arguments, *corpus, str(SEEDS / name)], PARSERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
