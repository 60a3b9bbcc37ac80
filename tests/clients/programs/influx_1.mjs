// npm `influx`: writes the points, or prints what it reads, one JSON text per line.
//
// influx_1.mjs URL USER PASSWORD DATABASE POINTS write|read

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const Influx = createRequire(process.env.NODE_PACKAGES)("influx");
const [url, username, password, database, points, what] = process.argv.slice(2);
const at = new URL(url);
const { INTEGER, FLOAT, STRING, BOOLEAN } = Influx.FieldType;
// It sends names of measurements as they are given.
const escaped = (name) => name.replace(/[ ,]/g, "\\$&");
const client = new Influx.InfluxDB({
  host: at.hostname,
  port: Number(at.port),
  username,
  password,
  database,
  schema: ["cpu", "disk space", "été,a=b"].map((name) => ({
    measurement: escaped(name),
    database,
    fields: { n: INTEGER, v: FLOAT, s: STRING, b: BOOLEAN },
    tags: ["host"],
  })),
});

if (what === "read") {
  for (const text of [
    "SELECT * FROM cpu",
    "SELECT count(n), mean(v) FROM /.*/ GROUP BY host",
    "SELECT s, b FROM \"disk space\" WHERE host = 'b, c=d' LIMIT 3",
  ]) {
    console.log(text, JSON.stringify((await client.query(text)).groupRows));
    console.log(text, JSON.stringify(await client.queryRaw(text, { precision: "ms" })));
  }
  console.log(JSON.stringify([await client.getDatabaseNames(), await client.getMeasurements(), await client.getSeries()]));
} else {
  const [{ online }] = await client.ping(5000);
  if (!online) throw new Error("ping");
  await client.createDatabase(database);
  const all = JSON.parse(readFileSync(points)).map(({ measurement, tags, fields, time }) => ({
    measurement: escaped(measurement),
    tags,
    fields,
    timestamp: time,
  }));
  for (let from = 0; from < all.length; from += 70) {
    await client.writePoints(all.slice(from, from + 70), { precision: "s" });
  }
}
