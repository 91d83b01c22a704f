"""Look at a store in the browser: runs, prompts, completions, pairs, evaluations. Nothing is written.

python -m flows.browse .rsdpo
python -m flows.browse s3://bucket/prefix --port 8400
"""

if __name__ == "__main__":  # a wrong flag is told before the imports below, which take seconds
    from flows.arguments import browse_parser

    browse_parser().parse_args()


import socket
from contextlib import suppress

import uvicorn
from pydantic import ValidationError

from flows.arguments import browse_parser
from flows.command_line import stop
from tasks.browser.app import create_app
from tasks.config.errors import ConfigurationError
from tasks.inspection.catalog import check_there
from tasks.store.filesystem import store_errors
from tasks.store.folders import Store

HOST = "127.0.0.1"


def main(arguments: list[str] | None = None) -> None:
    """Serve the pages until Ctrl-C; exit with 2 and one message where something is wrong."""
    options = browse_parser().parse_args(arguments)
    try:
        store = Store(options.store)
        check_there(store)
        listener = listen(options.port)
    except store_errors(ConfigurationError, ValidationError) as error:
        stop(error)
    with listener:
        print(f"{store.uri} is at http://{HOST}:{listener.getsockname()[1]}/  (stop with Ctrl-C)", flush=True)
        settings = uvicorn.Config(create_app(store), log_level="warning", access_log=False, server_header=False)
        with suppress(KeyboardInterrupt):  # Ctrl-C, which uvicorn raises again once it has stopped
            uvicorn.Server(settings).run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine's loopback alone; 0: any free port.

    Raises:
        ConfigurationError: The port is no port, or cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"port {port} of {HOST} cannot be had ({error}): choose another with --port"
        ) from error
    return listener


if __name__ == "__main__":
    main()
