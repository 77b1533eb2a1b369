"""What servers must answer, and the checks that they do."""

import contextlib
import html.parser
import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor

from servers import FORTUNES, HOST, Failure

# How long a request may take to be answered, in seconds.
LIMIT = 60

ADDITIONAL = (0, "Additional fortune added at request time.")

# What may be asked for as a count, and how many rows it gives.
COUNTS = {
    "": 1,
    "?q=": 1,
    "?q=foo": 1,
    "?q=0": 1,
    "?q=-1": 1,
    "?q=1": 1,
    "?q=20": 20,
    "?queries=20": 20,
    "?q=500": 500,
    "?q=501": 500,
}


def check(server, database):
    """Fails if the server does not answer as it should."""
    try:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=LIMIT)
        with contextlib.closing(connection):
            Check(connection, database).all()
        check_pipeline(server)
        check_crowd(server, database)
    except Failure as failure:
        raise Failure(f"{server.name}: {failure}") from None
    except (OSError, ValueError, http.client.HTTPException) as problem:
        raise Failure(f"{server.name}: {problem!r}") from problem


def expect(holds, message):
    if not holds:
        raise Failure(message)


class Check:
    """Checks of what comes over one connection, which all requests share."""

    def __init__(self, connection, database):
        self.connection = connection
        self.database = database

    def all(self):
        body = self.get("/plaintext", "text/plain")
        expect(body == b"Hello, World!", f"the plain text is {body}")
        body = self.get("/json", "application/json")
        expect(json.loads(body) == {"message": "Hello, World!"}, f"the message is {body}")
        table = self.database.worlds()
        check_world(self.json("/db"), table)
        for query, count in COUNTS.items():
            check_worlds(self.json(f"/queries{query}"), count, table)
        self.fortunes()
        for query, count in COUNTS.items():
            worlds = self.json(f"/updates{query}")
            before, table = table, self.database.worlds()
            check_worlds(worlds, count, table)
            ids = {world["id"] for world in worlds}
            expect(len(ids) == count, f"/updates{query} changed a row twice")
            others = {number for number in table if table[number] != before[number]} - ids
            expect(not others, f"/updates{query} changed rows {others} that it did not tell of")
            changed = any(table[number] != before[number] for number in ids)
            expect(count < 20 or changed, f"/updates{query} changed nothing")
        self.connection.request("GET", "/")
        response = self.connection.getresponse()
        expect(response.status == 404, f"/ has status {response.status}")
        response.read()

    def get(self, path, content_type):
        """The body of an answer with the right head."""
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        body = response.read()
        expect(response.status == 200, f"{path} has status {response.status}: {body}")
        actual = response.getheader("Content-Type", "")
        expect(actual.startswith(content_type), f"{path} has type {actual}")
        length = response.getheader("Content-Length")
        expect(length == str(len(body)), f"{path} has length {length}, not {len(body)}")
        for name in ("Server", "Date"):
            expect(response.getheader(name), f"{path} has no {name}")
        return body

    def json(self, path):
        return json.loads(self.get(path, "application/json"))

    def fortunes(self):
        body = self.get("/fortunes", "text/html; charset=utf-8").decode()
        expect("<script>" not in body, "a fortune is not escaped")
        page = Page()
        page.feed(body)
        wanted = sorted([*FORTUNES, ADDITIONAL], key=lambda row: row[1].encode())
        wanted = [["id", "message"], *([str(number), text] for number, text in wanted)]
        expect(page.rows == wanted, f"the fortunes are {page.rows}")


class Page(html.parser.HTMLParser):
    """Collects the texts of a table's cells."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def handle_starttag(self, tag, _):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def check_world(world, table):
    is_world = isinstance(world, dict) and list(world) == ["id", "randomNumber"]
    expect(is_world, f"{world} is no row")
    number = table.get(world["id"])
    expect(number == world["randomNumber"], f"{world} is not in the table, but {number}")


def check_worlds(worlds, count, table):
    expect(isinstance(worlds, list) and len(worlds) == count, f"{worlds} are not {count} rows")
    for world in worlds:
        check_world(world, table)
    ids = {world["id"] for world in worlds}
    expect(count < 20 or len(ids) > 1, f"all rows are {ids}")


def check_pipeline(server):
    """Requests that come together are answered in order."""
    paths = ["/plaintext", "/db", "/json"]
    requests = "".join(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" for path in paths)
    with socket.create_connection((HOST, server.port), timeout=LIMIT) as client:
        client.sendall(requests.encode())
        answers = b""
        while b"message" not in answers:
            part = client.recv(65536)
            expect(part, f"the connection ended after {answers}")
            answers += part
    places = [answers.find(part) for part in (b"Hello, World!", b"randomNumber", b"message")]
    expect(-1 not in places and places == sorted(places), f"pipelined answers are {answers}")


def check_crowd(server, database):
    """Rows are those of the table, also when many ask at once."""
    table = database.worlds()

    def ask(_):
        connection = http.client.HTTPConnection(HOST, server.port, timeout=LIMIT)
        with contextlib.closing(connection):
            for _ in range(5):
                check_worlds(Check(connection, database).json("/queries?q=20"), 20, table)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, range(40)))
