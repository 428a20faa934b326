"""The words for files, uv and supervisor: argv tuples made of plain values. Nothing is run here."""

from __future__ import annotations

Argv = tuple[str, ...]

# Files (GNU coreutils and busybox). `--` keeps a name that begins with a dash a name.


def make_folders(*paths: str) -> Argv:
    return ("mkdir", "-p", "-m", "700", "--", *paths)


def make_new_folder(path: str) -> Argv:
    """Fails when it is there already."""
    return ("mkdir", "-m", "700", "--", path)


def read(path: str) -> Argv:
    return ("cat", "--", path)


def names(folder: str) -> Argv:
    return ("ls", "-A", "--", folder)


def lines_of(folder: str, name: str) -> Argv:
    """Every line of every file `name` below the folder, after its path and a NUL byte."""
    return ("grep", "-rsHZ", "--include", name, "-e", "", "--", folder)


def files_with(folder: str, name: str, text: str) -> Argv:
    """Files `name` below the folder that have `text` in them."""
    return ("grep", "-rslF", "--include", name, "-e", text, "--", folder)


def append(path: str) -> Argv:
    """What comes on standard input."""
    return ("tee", "-a", "--", path)


def empty_folders(folder: str, ending: str) -> Argv:
    """Folders directly in `folder` with that ending and nothing in them."""
    return ("find", folder, "-mindepth", "1", "-maxdepth", "1", "-type", "d", "-name", f"*{ending}", "-empty")


def remove_below(folder: str, pattern: str) -> Argv:
    """What is directly in `folder` and matches, with all that is in it."""
    return ("find", folder, "-mindepth", "1", "-maxdepth", "1", "-name", pattern, "-exec", "rm", "-rf", "{}", "+")


def remove_marks(folder: str, name: str) -> Argv:
    """Empty folders of that name two levels below."""
    return ("find", folder, "-mindepth", "2", "-maxdepth", "2", "-type", "d", "-name", name, "-empty", "-delete")


def open_folder(path: str) -> Argv:
    """For everybody who may come as far as there."""
    return ("chmod", "777", "--", path)


def readable_folder(path: str) -> Argv:
    return ("chmod", "755", "--", path)


def runnable(path: str) -> Argv:
    return ("test", "-x", path)


def exists(path: str) -> Argv:
    return ("test", "-e", path)


def link(target: str, path: str) -> Argv:
    """Replaces a link that is there."""
    return ("ln", "-sfn", "--", target, path)


def leads_to(path: str) -> Argv:
    """Says what a link holds; fails for what is none."""
    return ("readlink", "--", path)


def owner(path: str) -> Argv:
    """Says kind, user number and mode of what is there, not of what it may lead to."""
    return ("stat", "-c", "%F:%u:%a", "--", path)


def copy(source: str, target: str) -> Argv:
    return ("cp", "-p", "--", source, target)


def rename(source: str, target: str) -> Argv:
    """rename(2): replaces a file; fails on a folder that holds anything, which is what makes it a lock."""
    return ("mv", "-T", "--", source, target)


def remove(*paths: str) -> Argv:
    return ("rm", "-rf", "--", *paths)


def readable(*paths: str) -> Argv:
    """By everybody who gets to them, with all that is in them."""
    return ("chmod", "-R", "a+rX", "--", *paths)


def remove_empty(folder: str) -> Argv:
    """Fails on a folder that holds anything."""
    return ("rmdir", "--", folder)


def make_file(path: str) -> Argv:
    return ("touch", "--", path)


def touch(path: str) -> Argv:
    return ("touch", "-c", "--", path)


def changed(path: str) -> Argv:
    """Says when the file was changed, in whole seconds since the epoch."""
    return ("stat", "-c", "%Y", "--", path)


def now() -> Argv:
    return ("date", "+%s")


def tail(path: str, lines: int) -> Argv:
    return ("tail", "-n", str(lines), "--", path)


def follow(lines: int, *paths: str) -> Argv:
    """Goes on over a rotation: by name, not by inode."""
    return ("tail", "-n", str(lines), "-F", "--", *paths)


# Environments


def make_environment(uv: str, python: str, folder: str) -> Argv:
    """Relocatable, because it is built beside its place and renamed into it."""
    return (uv, "venv", "--relocatable", "--no-project", "--python", python, folder)


def fill_environment(uv: str, python: str, lock: str) -> Argv:
    """Exactly what `lock` names, wheels only: no package's build script runs on this machine."""
    return (uv, "pip", "sync", "--python", python, "--require-hashes", "--no-build", lock)


def check_bundle(python: str, folder: str, entry: str) -> Argv:
    return ("env", "-C", folder, python, entry, "--check")


# What the machine does itself: packer_lib/hosts/toolbox.py, put there as one file


def toolbox(python: str, file: str, *words: str) -> Argv:
    """`-I -S`: nothing of the machine's own Python configuration, and a start of 15 ms."""
    return (python, "-I", "-S", file, *words)


def door(python: str, file: str, *words: str) -> Argv:
    """packer_lib/runtime/door, a folder that Python runs, put there file by file."""
    return (python, "-I", "-S", file, *words)


def supervisord(python: str, conf: str) -> Argv:
    return (python, "-m", "supervisor.supervisord", "-c", conf)


def supervisorctl(python: str, conf: str, *words: str) -> Argv:
    return (python, "-m", "supervisor.supervisorctl", "-c", conf, *words)
