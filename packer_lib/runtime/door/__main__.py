"""`python FOLDER …` on a machine that has nothing else of ours, `python -m mlpacker_runtime.door …` in a bundle."""

# ruff: noqa: PTH100, PTH119, PTH120
import os
import sys
from importlib import import_module

folder = os.path.dirname(os.path.abspath(__file__))
package = __package__
if not package:  # run as a folder, which is a package all the same
    sys.dont_write_bytecode = True  # and stays as it was sent
    sys.path[0:1] = []
    sys.path.append(os.path.dirname(folder))
    package = os.path.basename(folder)

if __name__ == "__main__":
    sys.exit(import_module(package + ".cli").main(sys.argv[1:]))
