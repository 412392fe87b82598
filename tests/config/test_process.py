"""A command as a process: streams that are closed, full, narrow or left, and signals."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from smz_jax.config.process import LastingStream, run_main

ROOT = Path(__file__).resolve().parents[2]
LINES = 50_000

TALKER = f"""
import sys, time
from pathlib import Path
from smz_jax.config.process import run_main
def main():
    with open(sys.argv[1], "w") as file:
        for number in range({LINES}):
            print("a line of some length, number", number)
        print("an error", file=sys.stderr)
        file.write("whole")
    return 0
run_main(main)
"""


def shell(command, script=TALKER, **environment):
    """Runs a line of bash in which $RUN is the script; gives its code, stdout and stderr."""
    run = f'{sys.executable} -c "$SCRIPT"'
    done = subprocess.run(
        ["bash", "-c", command.replace("$RUN", run)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCRIPT": script, **environment},
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_reader_that_leaves_does_not_end_the_program(tmp_path):
    path = tmp_path / "file"
    code, out, err = shell(f"$RUN {path} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (code, out, err) == (0, b"a line of some length, number 0\n", "an error\n")
    assert path.read_text() == "whole"


def test_a_full_device_is_one_line_and_code_1(tmp_path):
    path = tmp_path / "file"
    code, _, err = shell(f"$RUN {path} > /dev/full")
    assert (code, err) == (1, "an error\nerror: output is lost: No space left on device\n")
    assert path.read_text() == "whole"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_take_no_output_into_a_file(tmp_path, closed):
    path = tmp_path / "file"
    code, out, _ = shell(f"$RUN {path} {closed}")
    assert (code, path.read_text()) == (0, "whole")
    assert bool(out) == (">&-" not in closed.replace("2>&-", ""))


def test_what_the_encoding_lacks_is_replaced():
    script = "from smz_jax.config.process import run_main\nrun_main(lambda: print('a · ━ b'))"
    assert shell("$RUN", script, PYTHONIOENCODING="ascii") == (0, b"a ? ? b\n", "")


@pytest.mark.parametrize("environment", [{"COLUMNS": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_help_fits_any_terminal(environment):
    command = f"{sys.executable} -m experiments.breakout --help"
    code, out, err = shell(command, **environment)
    assert (code, err) == (0, "") and len(out) > 1000


@pytest.mark.parametrize("command", ["breakout --help", "play --help", "breakout --seed x"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_help_and_errors_need_no_stream(command, closed):
    code, _, err = shell(f"{sys.executable} -m experiments.{command} {closed}")
    assert code == (0 if "--help" in command else 2)
    assert "Traceback" not in err


WAITER = """
import time
from smz_jax.config.process import run_main
def main():
    print("ready", flush=True)
    time.sleep(60)
run_main(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line(number):
    with subprocess.Popen(
        [sys.executable, "-c", WAITER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "interrupted\n")


def test_nohup_is_heard():
    script = WAITER.replace("time.sleep(60)", "import os; os.kill(os.getpid(), 1)")
    assert shell("nohup $RUN", script)[:2] == (0, b"ready\n")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("JAX_ENABLE_X64", "maybe", "true or false"),
        ("JAX_NUMPY_RANK_PROMOTION", "often", "one of allow, warn, raise"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "good", "one of default, high, highest"),
        ("JAX_NUM_CPU_DEVICES", "two", "a number"),
    ],
)
def test_what_jax_does_not_take_is_one_line(name, value, allowed):
    script = "from smz_jax.config.process import run_main\nrun_main(lambda: __import__('jax').x)"
    code, out, err = shell("$RUN", script, **{name: value})
    assert (code, out) == (2, b"") and err.count("\n") == 1
    line = f"error: {name} = {value!r} in the environment is not allowed: it must be {allowed}"
    assert err.startswith(line)


def test_another_error_of_a_value_is_no_setting_of_jax():
    script = "from smz_jax.config.process import run_main\nrun_main(lambda: int('jax_enable_x64'))"
    code, _, err = shell("$RUN", script, JAX_ENABLE_X64="true")
    assert code == 1 and "Traceback" in err


def test_outside_of_the_main_thread_signals_are_left_alone(capsys):
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    def work():
        with pytest.raises(SystemExit) as excinfo:
            run_main(lambda: print("done"))
        ended.append(excinfo.value.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (ended, capsys.readouterr().out) == ([0], "done\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_lost_stream_leaves_no_descriptor_open():
    opened = len(os.listdir("/proc/self/fd"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        lasting = LastingStream(stream)
        for _ in range(3):
            lasting.write("text")
            lasting.flush()
    assert len(os.listdir("/proc/self/fd")) == opened


OWN = """
import sys
from smz_jax.config.experiment import Experiment
from smz_jax.run import launch as launching
from smz_jax.run.ending import resume_command
def run(x):
    print(x.command, resume_command(x, "DIR"), sep="\\n")
    return launching.Ended("DIR", 0)
launching.run = run
launching.launch(Experiment("mine"), {})
"""


@pytest.mark.parametrize(
    ("file", "words"), [("own.py", "own.py"), ("own.py", "-m own"), ("own/__main__.py", "-m own")]
)
@pytest.mark.parametrize("given", ["None", "['--preset', 'smoke']"])
def test_a_script_of_the_users_is_recorded_as_it_was_typed(tmp_path, file, words, given):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(OWN.format(given))
    command = f"cd {tmp_path}; {sys.executable} {words} --preset tiny"
    code, out, err = shell(command)
    assert (code, err) == (0, "")
    typed, resumed = out.decode().splitlines()
    assert typed == f"python {words} --preset tiny"
    assert resumed == f"{sys.executable} {words} --resume --run_dir DIR"


def test_a_system_without_its_signals_is_one_line():
    """As on Windows."""
    code = "import signal; del signal.SIGHUP; import smz_jax.config.process"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: smz_jax needs Linux or macOS")
