"""The programs that are measured and that measure."""

import json
import os
import shutil
import subprocess

from .failure import Failure, Skipped

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def build(name, *arguments):
    """Builds a program of this project and returns its path."""
    command = ["cargo", *arguments, "--message-format=json-render-diagnostics"]
    try:
        built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(error) from error
    for message in map(json.loads, built.stdout.splitlines()):
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise Failure(f"{' '.join(command)} built no program '{name}'")


def needs(tool, package):
    if shutil.which(tool) is None:
        raise Skipped(f"no {tool}: apt-get install {package}")
