#!/usr/bin/env python3
"""Puts the deliberate faults of mutants.txt into a copy of the tree, builds the simulator there, and for each of them runs
seeds until one finds it: of all kinds, or of the profile that its name ends with in brackets. Ends with status 1 when a
fault is not found, or its place is not.

    mutants.py [WORD...]    only those whose name has one of these words
    mutants.py --check      only looks whether each place is there, as `make lint` does

Environment: SEEDS (default 20000), CARGO."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"


def mutants():
    lines = (ROOT / "sim" / "mutants.txt").read_text().split("\n")
    text = "\n".join(line for line in lines if not line.startswith("#"))
    for block in re.split(r"\n\s*\n", text.strip()):
        name, file, *change = block.split("\n")
        old = "\n".join(line[1:] for line in change if line.startswith("-"))
        new = "\n".join(line[1:] for line in change if line.startswith("+"))
        yield name, file, old, new.replace("MUTANT", f'fluxgate_machine::mutant("{name}")')


def changed_files():
    """The text of each file that is changed, with all its faults in it."""
    changed = {}
    for name, file, old, new in mutants():
        text = changed.get(file) or (ROOT / file).read_text()
        if text.count(old) != 1:
            sys.exit(f"{name}: its place is there {text.count(old)} times in {file}: bring sim/mutants.txt up to date")
        changed[file] = text.replace(old, new)
    return changed


def copy_tree():
    """All files of the tree, with every fault in them; untouched where nothing has changed, for cargo's sake."""
    changed = changed_files()
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    files = {name: ROOT / name for name in listed.stdout.decode().split("\n") if name and (ROOT / name).is_file()}
    for name, source in files.items():
        target = COPY / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = changed[name].encode() if name in changed else source.read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)


def build():
    env = dict(os.environ, CARGO_TARGET_DIR=str(COPY / "build"))
    cargo = [os.environ.get("CARGO", "cargo"), "build", "-q", "-p", "fluxgate-sim", "--features", "sim"]
    built = subprocess.run(cargo + ["--profile", "sim"], cwd=COPY / "tree", env=env, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)


def run(name):
    """What finds it; None: nothing does."""
    env = dict(os.environ, MUTANT=name, SOON="1", SEEDS=os.environ.get("SEEDS", "20000"))
    if profile := re.search(r"\((\w+)\)$", name):
        env["PROFILE"] = profile.group(1)
    ran = subprocess.run([COPY / "build" / "sim" / "fluxgate-sim"], env=env, capture_output=True, text=True)
    seeds = re.search(r"^(\d+) seeds from", ran.stdout, re.M)
    kinds = sorted(set(re.findall(r"NEW: (.*?): ", ran.stderr)))
    print(f"{name}: {', '.join(kinds) or 'NOT FOUND'}, {seeds.group(1) if seeds else '?'} seeds", flush=True)
    return kinds


def main():
    words = sys.argv[1:]
    if words == ["--check"]:
        changed_files()
        return
    # A fault may have several places.
    names = list(dict.fromkeys(name for name, *_ in mutants() if not words or any(word in name for word in words)))
    copy_tree()
    build()
    found = [name for name in names if run(name)]
    print(f"{len(found)} of {len(names)} found")
    sys.exit(len(found) != len(names))


if __name__ == "__main__":
    main()
