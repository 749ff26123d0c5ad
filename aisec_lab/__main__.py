"""`python -m aisec_lab`: the command `aisec`, where the script is not on the path."""

from aisec_lab.workbench.command import main

if __name__ == "__main__":
    main(prog_name="aisec")
