"""Exits with 0 when each of these Kafka brokers (`HOST:PORT,HOST:PORT`) says that all N of them are there."""

import socket
import struct
import sys


def brokers(address: str) -> int:
    """How many live brokers this one knows of, by a Metadata request (version 1) for no topic."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.settimeout(2)
        body = struct.pack(">hhih", 3, 1, 1, 5) + b"ready" + struct.pack(">i", 0)
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 12:
            more = connection.recv(4096)
            if not more:
                raise OSError("closed")
            answer += more
        return struct.unpack(">i", answer[8:12])[0]


def main() -> None:
    wanted, addresses = int(sys.argv[1]), sys.argv[2].split(",")
    try:
        sys.exit(0 if all(brokers(address) == wanted for address in addresses) else 1)
    except OSError:
        sys.exit(1)


main()
