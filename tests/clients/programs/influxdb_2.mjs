// npm `@influxdata/influxdb-client`: writes the points.
//
// influxdb_2.mjs URL USER PASSWORD DATABASE POINTS write|write-gzip

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { InfluxDB, Point } = createRequire(process.env.NODE_PACKAGES)("@influxdata/influxdb-client");
const [url, user, password, database, points, what] = process.argv.slice(2);
const token = user ? `${user}:${password}` : "any";
const api = new InfluxDB({ url, token }).getWriteApi("any", database, "s", {
  batchSize: 70,
  gzipThreshold: what === "write-gzip" ? 1 : Infinity,
});
for (const { measurement, tags, fields, time } of JSON.parse(readFileSync(points))) {
  const point = new Point(measurement).timestamp(time);
  for (const [name, value] of Object.entries(tags)) point.tag(name, value);
  point.intField("n", fields.n).floatField("v", fields.v).stringField("s", fields.s).booleanField("b", fields.b);
  api.writePoint(point);
}
await api.close();
