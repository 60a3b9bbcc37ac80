"""Uses InfluxDB's Python client as an application would, and prints what it got, one JSON text per line.

client.py HOST PORT write|read
"""

import json
import sys

from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError

host, port, what = sys.argv[1:]
client = InfluxDBClient(host, int(port))


def show(name, value):
    print(name, json.dumps(value, sort_keys=True, default=str), flush=True)


def refused(name, call):
    try:
        show(name, call())
    except InfluxDBClientError as error:
        show(name, ["refused", error.code, str(error.content)])


def write():
    client.create_database("py")
    client.create_retention_policy("short", "30000d", "1", database="py")
    client.switch_database("py")
    show("policies", client.get_list_retention_policies())
    points = [
        {
            "measurement": name,
            "tags": {"host": host, "odd key": "a,b c=d"},
            "time": 1700000000000000000 + n,
            "fields": {"v": n / 7, "i": n, "big": 2**62 + n, "s": 'a "word" \\ é\n', "b": n % 2 == 0},
        }
        for name in ("cpu", "mem", "été", "with space", "a,b")
        for host in ("a", "b")
        for n in range(20)
    ]
    show("written", client.write_points(points, batch_size=30))
    show("written in s", client.write_points([{"measurement": "s", "time": 1700000000, "fields": {"v": 1}}], time_precision="s"))
    show("written to a policy", client.write_points([{"measurement": "cpu", "time": 1, "fields": {"v": 2.5}}], retention_policy="short"))
    show("lines", client.write_points(["lines,k=x v=1i 1", "lines,k=y v=2i 2"], protocol="line"))
    refused("conflict", lambda: client.write_points([{"measurement": "nodb", "fields": {"v": 1}}], database="nosuch"))


def read():
    client.switch_database("py")
    show("databases", client.get_list_database())
    show("measurements", client.get_list_measurements())
    show("series", client.get_list_series())
    show("series of one", client.get_list_series(measurement="cpu", tags={"host": "a"}))
    show("policies", client.get_list_retention_policies("py"))
    for text in (
        "SELECT * FROM cpu",
        "SELECT * FROM cpu, mem, \"été\", \"with space\", \"a,b\" LIMIT 3",
        "SELECT mean(v), max(big), count(s) FROM /.*/ GROUP BY host",
        "SELECT v FROM nosuch",
        "SELECT * FROM short.cpu",
        "SHOW TAG VALUES WITH KEY = host",
        "SHOW FIELD KEYS",
        "SELECT first(v) FROM cpu; SELECT last(*) FROM mem, s",
    ):
        for epoch in (None, "ns", "ms", "s"):
            result = client.query(text, epoch=epoch)
            show(text, [r.raw for r in result] if isinstance(result, list) else result.raw)
        show("points of " + text, [list(r.get_points()) for r in result] if isinstance(result, list) else list(result.get_points()))
    # Its msgpack reader takes one document only, so that pieces are read as JSON.
    in_json = InfluxDBClient(host, int(port), database="py", headers={"Accept": "application/json"})
    show("json", in_json.query("SELECT * FROM cpu, mem").raw)
    for chunk_size in (1, 7, 10000):
        result = in_json.query("SELECT v, i FROM cpu, mem", chunked=True, chunk_size=chunk_size)
        show("chunked %d" % chunk_size, result.raw if hasattr(result, "raw") else [r.raw for r in result])
    show("bound", client.query("SELECT v FROM cpu WHERE host = $h AND i > $n", bind_params={"h": "a", "n": 15}).raw)
    show("post", client.query("SELECT v FROM cpu, mem LIMIT 1", method="POST").raw)
    show("other database", client.query("SELECT * FROM alone, b..only_b LIMIT 2", database="a").raw)
    show("strings", client.query("SELECT * FROM str, flag, ints", database="a").raw)
    refused("syntax", lambda: client.query("SELECT FROM").raw)
    refused("no database", lambda: client.query("SELECT * FROM m", database="nosuch").raw)
    refused("rule", lambda: client.query("SELECT v, mean(v) FROM cpu").raw)
    client.delete_series(measurement="mem", tags={"host": "a"})
    show("after delete", client.query("SELECT count(v) FROM cpu, mem GROUP BY host").raw)
    client.drop_measurement("cpu")
    show("after drop", client.get_list_measurements())
    client.alter_retention_policy("short", database="py", default=True)
    show("after alter", client.get_list_retention_policies("py"))
    client.drop_database("py")
    show("at last", client.get_list_database())


{"write": write, "read": read}[what]()
