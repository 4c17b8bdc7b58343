"""The stand-in phone, as the real adb sees it: what the other tests rely on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stand_in import MODERN, OLD, AdbServer, Answer, Fault, StandInDevice, make_tool

TMP = "/data/local/tmp"
RUN = f"{TMP}/tool --graph={TMP}/model --num_runs=5"


@pytest.fixture
def sh(adb: AdbServer) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command line on a phone."""

    def run(device: StandInDevice, command: str, **options: float) -> subprocess.CompletedProcess:
        return adb.run("-s", device.serial, "shell", command, **options)

    return run


@pytest.fixture
def equipped(phone: StandInDevice, tool_path: Path) -> StandInDevice:
    """A phone that has the tool and a model."""
    phone.files.store(f"{TMP}/tool", tool_path.read_bytes(), 0o755)
    phone.files.store(f"{TMP}/model", b"a model")
    return phone


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


# ---- shells -------------------------------------------------------------------------------------


def test_adb_lists_the_phone(adb, phone):
    listed = adb.run("devices", "-l").stdout
    assert re.search(rf"{phone.serial}\s+device product:OnePlus9_EEA model:LE2113 ", listed)
    assert phone.serial.startswith("127.0.0.1:")


def test_streams_and_exit_code(phone, sh):
    result = sh(phone, "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)
    assert phone.log == ["shell,v2,raw:echo out; echo err >&2; exit 7"]
    assert phone.round_trips() == 1


def test_shell_of_old_phones_loses_the_exit_code(adb, make_phone, sh):
    phone = make_phone(OLD, features=("cmd",))
    phone.crlf = True
    result = sh(phone, "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\r\nerr\r\n", "", 0)
    assert phone.log == ["shell:echo out; echo err >&2; exit 7"]


def test_adbd_before_android_9_loses_the_exit_code_of_who_closes_stdin(adb, phone, sh):
    phone.faults.add(Fault("late", on="shell", times=None))
    assert sh(phone, "echo out; exit 7").returncode != 7  # adb's own shell closes it at its end
    keep = [adb.adb, "-s", phone.serial, "shell", "echo out; exit 7"]
    with subprocess.Popen(keep, stdin=subprocess.PIPE, env=adb.environment) as process:
        assert process.wait(20) == 7  # nothing was said of stdin


def test_what_root_made_and_what_is_full(phone, sh):
    phone.roots_own = [f"{TMP}/theirs"]
    (phone.root / f"{TMP[1:]}/theirs/deep").mkdir(parents=True)
    for command in ("mkdir", "rmdir", "rm -rf"):
        result = sh(phone, f"{command} {TMP}/theirs/deep/../new")
        assert (result.returncode, "Permission denied" in result.stderr) == (1, True)
    assert sh(phone, f"mkdir -p {TMP}/theirs/deep").returncode == 0
    phone.has_inodes = False
    result = sh(phone, f"mkdir {TMP}/new")
    assert result.stderr == f"mkdir: '{TMP}/new': No space left on device\n"
    assert sh(phone, f"mkdir -p {TMP}").returncode == 0


def test_stdin_reaches_the_command(adb, phone):
    command = [adb.adb, "-s", phone.serial, "shell", "wc -c; echo done"]
    data = b"x" * 300_000
    result = subprocess.run(
        command, env=adb.environment, input=data, capture_output=True, timeout=20
    )
    assert result.stdout.split() == [b"300000", b"done"]


def test_binary_output_is_whole(adb, phone):
    content = os.urandom(700_001)
    phone.files.store(f"{TMP}/random", content)
    command = [adb.adb, "-s", phone.serial, "exec-out", f"cat {TMP}/random"]
    result = subprocess.run(command, env=adb.environment, capture_output=True, timeout=20)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(content).digest()


def test_shells_at_the_same_time(phone, sh):
    results = {}
    wait = f"until [ -e {TMP}/go ]; do sleep 0.01; done"

    def run(number: int) -> None:
        results[number] = sh(phone, f"echo > {TMP}/{number}; {wait}; ls {TMP}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: all((phone.root / f"data/local/tmp/{n}").exists() for n in range(3)))
    phone.files.store(f"{TMP}/go", b"")
    for thread in threads:
        thread.join()
    assert {result.stdout for result in results.values()} == {"0\n1\n2\ngo\n"}


def test_paths_are_those_of_the_phone(phone, sh):
    script = (
        f'echo "$0 $1"; cd {TMP} && pwd && ls {TMP}/nothing\necho "${{HOME}}data" ./data 1/data'
    )
    phone.files.store(f"{TMP}/script.sh", script.encode())
    result = sh(phone, f"sh {TMP}/script.sh /sdcard")
    assert result.stdout == f"{TMP}/script.sh /sdcard\n{TMP}\n/data ./data 1/data\n"
    assert "'/data/local/tmp/nothing': No such file" in result.stderr
    quoted = sh(phone, f"sh -c 'echo \"{TMP}\"; sh' < {TMP}/script.sh")
    assert quoted.stdout.startswith(f"{TMP}\n")


def test_environment_is_the_phones(phone, sh):
    names = {line.partition("=")[0] for line in sh(phone, "env").stdout.splitlines()}
    assert names <= {
        *("HOME", "LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "TMPDIR", "_"),
        *("STAND_IN_ROOT", "STAND_IN_SHELL", "STAND_IN_ROOTS_OWN", "STAND_IN_IS_FULL"),
    }
    assert sh(phone, "python3 -V").returncode == 127
    assert sh(phone, "id -u; uname -m").stdout == "2000\naarch64\n"


def test_adbutils_client(adb, phone, tmp_path):
    import adbutils

    client = adbutils.AdbClient(port=adb.port)
    device = client.device(phone.serial)
    assert device.prop.model == "LE2113"
    assert device.shell2("echo hi; false", v2=True).returncode == 1
    (tmp_path / "file").write_bytes(b"content")
    device.sync.push(str(tmp_path / "file"), f"{TMP}/file")
    assert device.sync.read_bytes(f"{TMP}/file") == b"content"
    assert device.sync.stat(f"{TMP}/file").size == 7
    assert [entry.path for entry in device.sync.list(TMP) if entry.path[0] != "."] == ["file"]


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [("shell_v2",), (*MODERN.features, "sendrecv_v2")])
def test_push_and_pull(adb, make_phone, tmp_path, features):
    phone = make_phone(features=features)
    content = os.urandom(300_000)
    (tmp_path / "a file $(x)").write_bytes(content)
    place = f"{TMP}/new folder/ä;b"
    assert adb.run("-s", phone.serial, "push", str(tmp_path / "a file $(x)"), place).returncode == 0
    assert (phone.root / place[1:]).read_bytes() == content
    assert adb.run("-s", phone.serial, "pull", place, str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == content
    listed = adb.run("-s", phone.serial, "ls", f"{TMP}/new folder").stdout
    assert "ä;b" in listed
    assert "000493e0" in listed  # its size
    assert [entry[0] for entry in phone.transfers] == ["push", "pull"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/data/../../../../../etc/passwd", f"{TMP}/link/passwd"]
)
def test_nothing_outside_of_the_root_is_reached(adb, phone, sh, tmp_path, path):
    sh(phone, f"ln -s /etc {TMP}/link")
    mine = tmp_path / "mine"
    mine.write_text("evil")
    pulled = adb.run("-s", phone.serial, "pull", path, str(tmp_path / "got"))
    assert pulled.returncode == 1
    assert not (tmp_path / "got").exists()
    before = Path("/etc/passwd").read_bytes()
    adb.run("-s", phone.serial, "push", str(mine), path)
    assert Path("/etc/passwd").read_bytes() == before


def test_mistakes_do_not_reach_the_host(phone, sh, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for command in (f"rm -f {mine}", f"cd {tmp_path}; rm -rf mine", f"mv {mine} /data"):
        result = sh(phone, command)
        assert result.returncode == 1
        assert result.stderr.endswith(": Read-only file system\n")
    assert mine.read_text() == "precious"
    assert sh(phone, f"cd {TMP}; mkdir -p a/b && touch -- a/b/-c && rm -rf a; ls").stdout == ""


def test_close_leaves_nothing(phone, sh):
    sh(phone, "sleep 1000 > /dev/null 2>&1 &")
    assert len(phone.processes()) == 1
    phone.close()
    wait_until(lambda: not phone.processes())
    assert not phone.root.exists()


# ---- what the phone says ------------------------------------------------------------------------


def test_state_is_attributes(phone, sh):
    phone.battery_celsius, phone.heat_per_run, phone.cool_per_read = 41.0, 0.5, 2.0
    phone.thermal_status = 3
    phone.core_khz[7] = 1_000_000
    phone.online = [0, 1, 2, 3, 7]
    phone.properties["ro.product.model"] = "a`b$(c)\n]: [x"
    cpu = "/sys/devices/system/cpu"
    names = f"{cpu}/cpu7/cpufreq/scaling_cur_freq {cpu}/online {cpu}/present"
    result = sh(phone, f"dumpsys battery; dumpsys thermalservice; cat {names}; getprop")
    assert "  temperature: 410\n" in result.stdout
    assert "Thermal Status: 3\n" in result.stdout
    assert "1000000\n0-3,7\n0-7\n" in result.stdout
    assert "[ro.product.model]: [a`b$(c)\n]: [x]\n" in result.stdout
    assert phone.battery_celsius == 37.0


def test_old_phone_hides_things(old_phone, sh):
    result = sh(old_phone, "dumpsys thermalservice")
    assert (result.stdout, result.returncode) == ("", 0)
    assert result.stderr == "Can't find service: thermalservice\n"
    frequency = "/sys/devices/system/cpu/cpu6/cpufreq/scaling_cur_freq"
    result = sh(old_phone, f"cat {frequency}")
    assert (result.stderr, result.returncode) == (f"cat: {frequency}: Permission denied\n", 1)


def test_screen(phone, sh):
    sh(phone, "settings put system screen_off_timeout 99; input keyevent 223; svc power stayon usb")
    assert phone.settings["system", "screen_off_timeout"] == "99"
    assert not phone.awake
    shown = sh(phone, "settings get global stay_on_while_plugged_in; dumpsys power").stdout
    assert shown.startswith("2\n")
    assert "mWakefulness=Asleep" in shown


def test_taskset(phone, sh):
    read_back = "sh -c 'grep Cpus_allowed_list: /proc/self/status'"
    result = sh(phone, f"grep Cpus_allowed_list: /proc/self/status; taskset f0 {read_back}")
    assert re.findall(r"\d-\d", result.stdout) == ["0-7", "4-7"]
    phone.online = list(range(6))
    for mask in ("80", "0x30", "xyz", "0"):
        result = sh(phone, f"taskset {mask} echo no")
        assert (result.stdout, result.returncode) == ("", 1)
        assert result.stderr.startswith("taskset: ")
    assert "current affinity mask: ff" in sh(phone, "taskset -p $$").stdout
    phone.taskset_ignored = True
    assert "0-7" in sh(phone, f"taskset 3 {read_back}").stdout


def test_answers_can_be_set_and_commands_removed(phone, sh):
    phone.set_answer("ls", Answer(b"$(reboot)\n\xff", code=3))
    phone.remove_command("sha256sum")
    result = sh(phone, "ls /data")
    assert result.stdout.startswith("$(reboot)\n")
    assert result.returncode == 3
    assert sh(phone, "sha256sum x").returncode == 127


# ---- the tool -----------------------------------------------------------------------------------


def test_pushed_tool_keeps_its_bytes_and_runs(adb, phone, sh, tool_path, tmp_path):
    adb.run("-s", phone.serial, "push", str(tool_path), f"{TMP}/t")
    content = tool_path.read_bytes()
    commands = (
        f"cd {TMP}; mv t u; chmod 755 u; cp u v; sha256sum v; wc -c < v; timeout 9 ./v --help"
    )
    result = sh(phone, commands)
    digest, size = result.stdout.splitlines()[:2]
    assert digest == f"{hashlib.sha256(content).hexdigest()}  v"
    assert int(size) == len(content)
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: usage: ./v <flags>\nFlags:\n\t--num_runs=50  ")
    adb.run("-s", phone.serial, "pull", f"{TMP}/v", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize(("abi", "bits"), [("x86_64", "64"), ("x86", "32")])
def test_tool_of_another_abi(phone, sh, tmp_path, abi, bits):
    tool = make_tool(tmp_path / "tool", abi)
    phone.files.store(f"{TMP}/other", tool.read_bytes(), 0o755)
    result = sh(phone, f"{TMP}/other --help")
    assert result.returncode == 126
    assert result.stderr.endswith(f"/other: not executable: {bits}-bit ELF file\n")


def test_instant_run(equipped, sh):
    seen = []
    equipped.on_run = lambda device, run: seen.append(run.cpus)
    equipped.tool.mean_us = lambda arguments: 5000.0 if "--num_threads=2" in arguments else 900.0
    line = f"taskset f0 sh -c 'exec {RUN} --num_threads=2 --use_xnnpack=true --use_gpu=true'"
    result = sh(equipped, line)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[:9] == [
        "INFO: STARTING!",
        "WARN: Unconsumed cmdline flags: --use_gpu=true",
        "INFO: Log parameter values verbosely: [0]",
        "INFO: Min num runs: [5]",
        "INFO: Num threads: [2]",
        f"INFO: Graph: [{TMP}/model]",
        "INFO: Signature to run: []",
        "INFO: #threads used for CPU inference: [2]",
        "INFO: Use xnnpack: [1]",
    ]
    assert "completely executed by the delegate." in result.stdout
    count = next(line for line in lines if line.startswith("INFO: count=200 "))
    assert re.search(r" first=\d+ curr=\d+ min=\d+ max=\d+ avg=[\d.]+ std=19 p5=\d+ ", count)
    assert result.stderr == "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    assert seen == ["4-7"]
    assert equipped.runs[0].arguments[0] == f"--graph={TMP}/model"


# The recorded runs of the real tool whose text does not depend on the model's ops.
RECORDED = (
    *("bad_flag_value", "dynamic_range_default", "dynamic_range_require_full_delegation"),
    *("dynamic_range_xnnpack_partial", "empty_model", "float_op_profile_csv", "float_peak_memory"),
    *("float_result_file", "float_two_threads", "float_xnnpack_explicit", "int8_default"),
    *("gpu_flag_not_compiled_in", "max_secs_cut", "missing_model", "no_graph_flag", "slow_model"),
    *("unknown_flag", "zero_threads"),
)


@pytest.mark.skipif("OFA_SHARED" not in os.environ, reason="OFA_SHARED has the recorded runs")
@pytest.mark.parametrize("name", RECORDED)
def test_prints_as_the_real_tool_did(phone, tool_path, sh, name):
    folder = Path(os.environ["OFA_SHARED"], "data", "benchmark_model")
    recorded = json.loads((folder / f"{name}.json").read_text())
    phone.files.store(f"{TMP}/benchmark_model", tool_path.read_bytes(), 0o755)
    for model in ("mnv3s_f32", "mnv3s_dyn", "mnv3s_int8", "slow"):
        phone.files.store(f"{TMP}/{model}.tflite", b"a model")
    phone.files.store(f"{TMP}/empty.tflite", b"")
    phone.tool.partitions = 10 if "dynamic" in name else 2
    result = sh(phone, recorded["command"])
    assert result.returncode == recorded["exit_code"]
    assert without_numbers(result.stdout) == without_numbers(recorded["stdout"])
    shown, real = (text.partition("Flags:")[0] for text in (result.stderr, recorded["stderr"]))
    assert without_numbers(shown) == without_numbers(real)


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "N", text.rstrip())


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ("2020", r"^Inference timings in us: Init: 12203, First inference: \d+, Warmup"),
        ("2019", r"^Average inference timings in us: Warmup: [\d.]+, Init: 12203, no stats: "),
    ],
)
def test_older_forms(equipped, sh, generation, expected):
    equipped.tool.generation = generation
    result = sh(equipped, RUN)
    assert re.search(expected, result.stdout + result.stderr, re.MULTILINE)
    assert "median" not in result.stdout + result.stderr
    assert (result.stdout == "") == (generation == "2019")


def test_other_delegates(equipped, sh):
    equipped.tool.delegates = ("xnnpack", "gpu")
    equipped.tool.partitions = 3
    shown = sh(equipped, f"{RUN} --use_gpu=1").stdout
    assert "Explicitly applied GPU delegate, and the model graph will be partially" in shown
    assert "w/ 3 delegate kernels." in shown
    assert sh(equipped, f"{RUN} --use_gpu=1 --require_full_delegation=true").returncode == 1


def test_failing_models(equipped, sh):
    equipped.files.store(f"{TMP}/empty", b"")
    empty = sh(equipped, f"{TMP}/tool --graph={TMP}/empty")
    missing = sh(equipped, f"{TMP}/tool --graph={TMP}/missing")
    equipped.tool.instant = False
    corrupt = sh(equipped, RUN)
    assert "ERROR: mmap of size 0 requested.\n" in empty.stderr
    assert f"ERROR: Could not open '{TMP}/missing'.\n" in missing.stderr
    assert f"ERROR: Failed to load model {TMP}/model\n" in corrupt.stderr
    assert {r.returncode for r in (empty, missing, corrupt)} == {1}


def test_real_run(equipped, sh, models):
    equipped.tool.instant = False
    equipped.files.store(f"{TMP}/model", models["float32"].read_bytes())
    files = f"--op_profiling_output_file={TMP}/csv --result_file_path={TMP}/result"
    profile = "--enable_op_profiling=true --op_profiling_output_mode=csv"
    quick = (
        "--min_secs=0 --warmup_min_secs=0 --use_xnnpack=true --report_peak_memory_footprint=true"
    )
    result = sh(equipped, f"{RUN} {quick} {profile} {files}")
    assert result.returncode == 0
    assert "count=5 " in result.stdout
    assert "completely executed by the delegate" in result.stdout
    assert "Overall peak memory footprint (MB)" in result.stdout
    assert result.stderr == "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    table = equipped.files.content(f"{TMP}/csv").decode()
    assert "CONV_2D, 2, " in table
    assert equipped.files.content(f"{TMP}/result")[0] == 0x12  # field 2: the latencies
    plain = sh(equipped, f"{RUN} --min_secs=0 --warmup_min_secs=0 --use_xnnpack=false")
    assert plain.stderr == ""


def test_app(adb, equipped, sh, tmp_path):
    apk = tmp_path / "tool.apk"
    apk.write_bytes(b"PK" * 100_000)
    start = "am start -S -n org.tensorflow.lite.benchmark/.BenchmarkModelActivity --es args"
    assert "does not exist" in sh(equipped, f"{start} x").stderr
    assert "Success" in adb.run("-s", equipped.serial, "install", "-r", "-g", str(apk)).stdout
    assert "package:org.tensorflow.lite.benchmark" in sh(equipped, "pm list packages").stdout
    equipped.logcat.clear()
    started = sh(equipped, f"{start} '--graph={TMP}/model --num_threads=2'")
    assert started.stdout.startswith("Stopping: org.tensorflow.lite.benchmark\nStarting: Intent ")
    logged = "logcat -d -v brief -s tflite:E"
    wait_until(lambda: "Inference timings" in sh(equipped, logged).stdout)
    assert re.search(r"^E/tflite  \( *\d+\): Inference timings", sh(equipped, logged).stdout, re.M)


# ---- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "end"),
    [
        (Fault("crash"), 139, "exceeding 150 seconds.\n"),
        (Fault("crash", signal=6), 134, "exceeding 150 seconds.\n"),
        (Fault("exit", code=3), 3, "exceeding 150 seconds.\n"),
        (Fault("truncate"), 0, r"INFO: count=\d+ first=[^\n]*"),
        (Fault("rubbish"), 0, r"[^\n]*"),
        (Fault("silent"), 0, r"\A"),
    ],
)
def test_spoiled_runs(equipped, sh, fault, code, end):
    equipped.faults.add(fault)
    result = sh(equipped, RUN)
    assert result.returncode == code
    assert re.search(rf"{end}\Z", result.stdout)
    assert "Inference timings" not in result.stdout
    assert "Inference timings" in sh(equipped, RUN).stdout


def test_which_run_is_spoiled(equipped, sh):
    equipped.faults.add(Fault("exit", match="special", skip=1, times=2))
    codes = [sh(equipped, f"{RUN} --name=special").returncode for _ in range(4)]
    assert codes == [0, 1, 1, 0]
    equipped.faults.add(Fault("exit", match="special"))
    assert sh(equipped, RUN).returncode == 0
    with pytest.raises(ValueError, match="no fault 'damage' on 'run'"):
        Fault("damage")


def test_hanging_run_lives_until_it_is_ended(equipped, sh):
    equipped.faults.add(Fault("hang", times=2))
    assert sh(equipped, f"timeout -s KILL 0.2 {RUN}").returncode == 137
    wait_until(lambda: not equipped.runs[0].is_running())
    with pytest.raises(subprocess.TimeoutExpired):
        sh(equipped, RUN, seconds=0.5)
    assert equipped.runs[1].is_running()  # the host going away does not end it
    sh(equipped, f"kill {equipped.runs[1].pid}")
    wait_until(lambda: not equipped.runs[1].is_running())


def test_endless_output(equipped, sh):
    equipped.faults.add(Fault("flood"))
    assert sh(equipped, f"{RUN} | head -c 3000000 | wc -c").stdout == "3000000\n"


def test_cable_pulled_in_a_run(adb, equipped, sh):
    equipped.faults.add(Fault("unplug", refuse=None))
    result = sh(equipped, RUN)
    assert result.returncode != 0
    assert "Inference timings" not in result.stdout
    assert "Connection refused" in adb.run("connect", equipped.serial).stdout
    equipped.plug_in()
    adb.disconnect(equipped)
    assert "connected to" in adb.run("connect", equipped.serial).stdout
    assert sh(equipped, "echo back").stdout == "back\n"


def test_phone_reboots_in_a_run(adb, equipped, sh):
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = sh(equipped, boot_id).stdout
    equipped.faults.add(Fault("reboot", refuse=1))
    assert sh(equipped, RUN).returncode != 0
    adb.disconnect(equipped)
    adb.connect(equipped)
    after = sh(equipped, boot_id).stdout
    assert len(after) == len(before) == 37
    assert after != before
    assert not equipped.runs[0].is_running()


def test_phone_stops_answering(adb, phone, sh):
    phone.faults.add(Fault("freeze", on="shell", match="dumpsys"))
    assert sh(phone, "echo 1").stdout == "1\n"
    with pytest.raises(subprocess.TimeoutExpired):
        sh(phone, "dumpsys battery", seconds=0.5)
    assert f"{phone.serial}\tdevice\n" in adb.run("devices").stdout
    phone.thaw()
    assert sh(phone, "echo 2").stdout == "2\n"


def test_unauthorized(adb, make_phone, sh):
    phone = make_phone(connect=False)
    phone.authorized = False
    adb.connect(phone)
    assert f"{phone.serial}\tunauthorized\n" in adb.run("devices").stdout
    assert "unauthorized" in sh(phone, "echo").stderr
    phone.authorized = True  # the user taps "allow"
    wait_until(lambda: f"{phone.serial}\tdevice\n" in adb.run("devices").stdout)
    assert sh(phone, "echo in").stdout == "in\n"


def test_full_storage(adb, equipped, sh, tool_path):
    equipped.free_bytes = 1024
    pushed = adb.run("-s", equipped.serial, "push", str(tool_path), f"{TMP}/more")
    assert pushed.returncode == 1
    assert "No space left on device" in pushed.stderr
    result = sh(equipped, f"cat {TMP}/tool > {TMP}/copy; df -k /data")
    assert "No space left on device" in result.stderr
    assert result.stdout.splitlines()[1].split()[3] == "1"
    equipped.free_bytes = None
    assert sh(equipped, f"cat {TMP}/tool > {TMP}/copy").stderr == ""


def test_spoiled_pushes(adb, phone, sh, tool_path):
    phone.faults.add(Fault("damage", on="push"))
    phone.faults.add(Fault("unplug", on="push", skip=1))
    push = ("-s", phone.serial, "push", str(tool_path), f"{TMP}/tool")
    assert adb.run(*push).returncode == 0
    digest = hashlib.sha256(tool_path.read_bytes()).hexdigest()
    shown = sh(phone, f"sha256sum {TMP}/tool").stdout
    assert len(shown.split()[0]) == 64
    assert digest not in shown
    assert adb.run(*push).returncode == 1
    adb.disconnect(phone)
    adb.connect(phone)
    assert adb.run(*push).returncode == 0
    assert digest in sh(phone, f"sha256sum {TMP}/tool").stdout


def test_server_is_killed(own_adb):
    with StandInDevice() as phone:
        own_adb.connect(phone)
        own_adb.kill()
        command = ("-s", phone.serial, "shell", "echo hi")
        assert "not found" in own_adb.run(*command).stderr  # adb started a new server
        own_adb.connect(phone)
        assert own_adb.run(*command).stdout == "hi\n"
