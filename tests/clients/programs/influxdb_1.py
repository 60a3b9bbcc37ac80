"""PyPI `influxdb`: writes the points, or prints what it reads, one JSON text per line.

influxdb_1.py URL USER PASSWORD DATABASE POINTS write|write-gzip|read
"""

import json
import sys
from urllib.parse import urlsplit

from influxdb import InfluxDBClient

url, user, password, database, points, what = sys.argv[1:]
at = urlsplit(url)
client = InfluxDBClient(at.hostname, at.port, user, password, database, gzip=what == "write-gzip")

if what == "read":
    for text in (
        "SELECT * FROM cpu",
        "SELECT count(n), mean(v) FROM /.*/ GROUP BY host",
        "SELECT s, b FROM \"disk space\" WHERE host = 'b, c=d' LIMIT 3",
        "SHOW TAG VALUES WITH KEY = host",
    ):
        for method in ("GET", "POST"):
            print(text, json.dumps(client.query(text, method=method).raw, sort_keys=True))
    print(json.dumps([client.get_list_database(), client.get_list_measurements()]))
else:
    client.ping()
    client.create_database(database)
    with open(points) as file:
        points = json.load(file)
    # In batches; the last ones in a request of their own that asks for an answer of all circles.
    assert client.write_points(points[:-20], time_precision="s", batch_size=70)
    assert client.write_points(points[-20:], time_precision="s", consistency="all")
