"""PyPI `influxdb3-python`: writes the points. It reads over gRPC only, which is not there.

influxdb_3.py URL USER PASSWORD DATABASE POINTS write|write-gzip
"""

import json
import sys

from influxdb_client_3 import InfluxDBClient3, Point, SYNCHRONOUS, WriteOptions, write_client_options

url, user, password, database, points, what = sys.argv[1:]
token = f"{user}:{password}" if user else "any"
with open(points) as file:
    points = json.load(file)
third = len(points) // 3

for part, scheme, options in (
    (points[:third], "Token", {"use_v2_api": False}),
    (points[third : 2 * third], "Bearer", {"use_v2_api": False, "no_sync": True}),
    (points[2 * third :], "Token", {"use_v2_api": True}),
):
    options = write_client_options(write_options=WriteOptions(write_type=SYNCHRONOUS, **options))
    more = {"auth_scheme": scheme, "write_client_options": options}
    if what == "write-gzip":
        more["enable_gzip"] = True
    with InfluxDBClient3(host=url, token=token, database=database, **more) as client:
        client.write([Point.from_dict(point, write_precision="s") for point in part], write_precision="s")
