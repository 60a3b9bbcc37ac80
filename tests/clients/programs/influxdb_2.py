"""PyPI `influxdb-client`: writes the points.

influxdb_2.py URL USER PASSWORD DATABASE POINTS write|write-gzip
"""

import json
import sys

from influxdb_client import InfluxDBClient, Point, WriteOptions
from influxdb_client.client.write_api import SYNCHRONOUS

url, user, password, database, points, what = sys.argv[1:]
failed = []
token = f"{user}:{password}" if user else "any"

with InfluxDBClient(url, token, org="any", enable_gzip=what == "write-gzip") as client:
    assert client.ping(), "ping"
    print(client.version(), client.health().status, client.ready().status)
    with open(points) as file:
        points = json.load(file)
    half = len(points) // 2
    with client.write_api(write_options=SYNCHRONOUS) as api:
        api.write(database, record=[Point.from_dict(point, write_precision="s") for point in points[:half]], write_precision="s")
    # As most programs do: in batches from a thread of its own, which sends again by itself.
    with client.write_api(
        write_options=WriteOptions(batch_size=40, flush_interval=200),
        error_callback=lambda _, data, error: failed.append(error),
    ) as api:
        for point in points[half:]:
            api.write(f"{database}/autogen", "any", Point.from_dict(point, write_precision="s"))
assert not failed, failed
