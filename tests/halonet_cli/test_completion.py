import shutil
import subprocess

import pytest

from halonet_cli.completion import make_completion
from halonet_cli.main import main, make_parser

# Completes the last word of a command line, as bash does.
COMPLETE = """
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
_shtab_halonet
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["tr"], ["train"]),
        (["detect", "e"], ["evaluate", "export"]),
        (["train", "fash"], ["fashion_mnist"]),
        (["train", "--schedule.e"], ["--schedule.epochs"]),
        (["detect", "train", "--schedule.s"], ["--schedule.steps"]),
        (["recipes", "imagenet/hybrids/h7_c12"], ["imagenet/hybrids/h7_c12", "imagenet/hybrids/h7_c123"]),
        (["evaluate", "--dat"], ["--data", "--data.root"]),
        (["evaluate", "my_r"], ["my_run"]),
    ],
)
def test_bash_completes_commands_flags_recipes_fields_and_files(words, completed, tmp_path):
    (tmp_path / "my_run").mkdir()
    script = make_completion(make_parser(), "bash") + COMPLETE
    done = subprocess.run(
        ["bash", "-c", script, "bash", "halonet", *words], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == completed


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_is_printed(shell, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert "--schedule.epochs" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_a_mistake_on_one_line(capsys):
    assert main(["--print-completion", "cmd"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
