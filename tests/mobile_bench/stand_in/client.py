"""What runs as each of the phone's own commands: asks the device object in the test's process.

Started as `python -I -S client.py SOCKET NAME ARGUMENTS...`. It runs many times in a test, so it
starts fast: without site-packages, and with the two C modules under `socket` and `pickle`, as to
import those takes longer than all the rest. Both ends are the same Python, which marshal needs.
"""

import _socket
import marshal
import os
import sys


def main() -> int:
    address, name, *arguments = sys.argv[1:]
    request = {
        "name": name,
        "arguments": arguments,
        "folder": os.getcwd(),
        "pid": os.getpid(),
        "shell": os.environ.get("STAND_IN_SHELL"),
        "cpus": os.environ.get("STAND_IN_CPUS"),
        "stdin": _stdin(name, arguments),
    }
    connection = _socket.socket(_socket.AF_UNIX)
    connection.connect(address)
    connection.sendall(marshal.dumps(request))
    with open(connection.fileno(), "rb", closefd=False) as answers:
        reply = marshal.load(answers)
        if "orders" in reply:
            return _run_tool(arguments, reply["orders"], connection, answers)
    if "command" in reply:
        return _execute(name, reply["command"], reply["environment"])
    sys.stdout.buffer.write(reply["stdout"])
    sys.stdout.flush()
    sys.stderr.buffer.write(reply["stderr"])
    return reply["code"]


def _stdin(name: str, arguments: list[str]) -> bytes:
    """Returns what a command reads from its input, if it does."""
    if name == "cmd" and "-S" in arguments:  # the package to install, of this size
        return sys.stdin.buffer.read(int(arguments[arguments.index("-S") + 1]))
    if name in ("sha256sum", "md5sum") and not any(os.path.exists(word) for word in arguments):
        return sys.stdin.buffer.read()
    return b""


def _run_tool(arguments: list[str], orders: dict, connection: _socket.socket, answers) -> int:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import benchmark_model

    def tell_the_middle() -> None:
        connection.sendall(marshal.dumps("middle"))
        marshal.load(answers)

    return benchmark_model.run(arguments, orders, tell_the_middle)


def _execute(name: str, command: list[str], environment: dict[str, str]) -> int:
    os.environ.update(environment)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{name}: exec {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        os._exit(141)  # 128 + SIGPIPE
