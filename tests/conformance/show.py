"""Prints the transcript of one file's cases on one server: `python show.py cases/x.txt [kind]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from conformance.script import Run, empty, parse_file, render
from servers import Server


def main(path: str, kind: str = "c") -> None:
    file = parse_file(Path(path))
    for case in file.cases:
        with Server(kind, file.schemas.items()) as server:
            empty(server, file)
            print(f"== {case.title}", *render(case, Run(server, file).case(case)), "", sep="\n")


main(*sys.argv[1:])
