//! Two circles of two real servers, as recorded, and what they hold.

use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, backend_name};
use serde_json::{Map, Value, json};

use crate::support;

/// Ports of the recorded backends.
const PORTS: [[u16; 2]; 2] = [[18086, 18087], [18088, 18089]];
/// Times after this were added by the proxy.
const NOW: i64 = 1_700_000_000_000_000_000;
/// Longer texts are recorded by their length.
const LONG_TEXT: usize = 50_000;

/// Two circles of two servers.
pub struct Servers {
    pub circles: Vec<Vec<Influxd>>,
}

impl Servers {
    pub fn start() -> Self {
        let mut servers: Vec<_> = (0..4).map(|_| Influxd::start().unwrap()).collect();
        // Some answers are sorted by url.
        servers.sort_by_key(Influxd::url);
        let second = servers.split_off(2);
        Self { circles: vec![servers, second] }
    }

    /// Number of the circle, number in it, and the server.
    pub fn all(&self) -> impl Iterator<Item = (usize, usize, &Influxd)> {
        let place = |n: usize| (n / 2, n % 2, &self.circles[n / 2][n % 2]);
        (0..4).map(place)
    }

    pub fn proxy(&self, keys: &[(&str, Value)]) -> Proxy {
        let urls: Vec<Vec<_>> = self.circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
        // A `/clear` waits for `query_timeout` after the end of a transition. Backends are stopped and come back.
        let config = ProxyConfig::new(&urls).set("query_timeout", 5).set("rewrite_interval", 1);
        support::start(&config.set_all(keys.iter().cloned()))
    }

    /// The recorded body with the addresses of these servers.
    pub fn here(&self, recorded: Vec<u8>) -> Vec<u8> {
        let Ok(mut text) = String::from_utf8(recorded.clone()) else { return recorded };
        for (c, b, server) in self.all() {
            text = text.replace(&format!("http://127.0.0.1:{}", PORTS[c][b]), &server.url());
        }
        text.into_bytes()
    }

    pub fn empty(&self) {
        for (_, _, server) in self.all().filter(|(.., server)| server.pid().is_some()) {
            for db in names(&server.query("", "SHOW DATABASES").unwrap()) {
                server.query("", &format!("DROP DATABASE \"{db}\"")).unwrap();
            }
        }
    }

    /// Fills the servers so that `/health` will count what it counted when recorded; `at` tells on which server of a
    /// circle a measurement belongs.
    pub fn fill(&self, recorded: &Value, at: &dyn Fn(&str, &str) -> usize) {
        for (c, b, server) in self.all() {
            // A stopped server holds what the server of the other circle holds.
            let stopped = recorded[c]["backends"][b]["active"] == false;
            let like = if stopped { 1 - c } else { c };
            for (db, load) in recorded[like]["backends"][b]["load"].as_object().unwrap() {
                server.create_database(db).unwrap();
                for (kind, wanted) in [("inplace", b), ("incorrect", 1 - b)] {
                    let names = (0..).map(|n| format!("m{n}")).filter(|name| at(db, name) == wanted);
                    for name in names.take(load[kind].as_u64().unwrap() as usize) {
                        write_to(server, db, &format!("{name} v=1 1"));
                    }
                }
            }
        }
    }

    /// The measurements they hold, in the form of the records.
    pub fn measurements(&self, db: &str) -> Value {
        let named = |server: &Influxd| names(&server.query(db, "SHOW MEASUREMENTS").unwrap());
        let held = self.all().map(|(c, b, server)| (backend_name(c, b), named(server).into()));
        Value::Object(held.collect())
    }

    /// What they hold, in the form of the records.
    pub fn contents(&self, db: &str) -> Value {
        let mut contents = Map::new();
        for (c, b, server) in self.all() {
            let mut found = Map::new();
            if server.pid().is_none() {
                contents.insert(backend_name(c, b), "unreachable".into());
                continue;
            }
            for name in server.query(db, "SHOW MEASUREMENTS").map_or(Vec::new(), |answer| names(&answer)) {
                let quoted = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let target = format!(
                    "{}/query?epoch=ns&db={}&q={}",
                    server.url(),
                    url_encoded(db),
                    url_encoded(&format!("SELECT * FROM \"{quoted}\""))
                );
                let answer = ureq::get(&target).call().unwrap().into_body().read_to_string().unwrap();
                let answer: Value = serde_json::from_str(&answer).unwrap();
                let series = &answer["results"][0]["series"][0];
                found.insert(name, json!({"columns": series["columns"], "values": series["values"]}));
            }
            contents.insert(backend_name(c, b), found.into());
        }
        plain(&contents.into())
    }
}

/// The first column of the first series.
pub fn names(answer: &Value) -> Vec<String> {
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

pub fn write_to(server: &Influxd, db: &str, line: &str) {
    let url = format!("{}/write?db={}", server.url(), url_encoded(db));
    assert_eq!(ureq::post(&url).send(line).unwrap().status(), 204);
}

/// What a server holds, without what depends on the way it was asked: columns of other measurements, and times that the
/// proxy added.
pub fn plain(contents: &Value) -> Value {
    let mut contents = contents.clone();
    let servers = contents.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut);
    for table in servers.flat_map(|server| server.values_mut()).filter(|table| table["values"].is_array()) {
        let rows = table["values"].as_array().unwrap();
        let texts = rows.iter().flat_map(|row| row.as_array().unwrap()).filter_map(Value::as_str);
        if let Some(bytes) = texts.map(str::len).max().filter(|bytes| *bytes > LONG_TEXT) {
            *table = json!({"rows": rows.len(), "value_len": bytes});
            continue;
        }
        let columns = table["columns"].as_array().unwrap();
        let row = |row: &Value| {
            let cells = columns.iter().zip(row.as_array().unwrap()).filter(|(_, value)| !value.is_null());
            let cells = cells.map(|(column, value)| match value {
                Value::Number(number) if number.as_i64().is_some_and(|number| number > NOW) => format!("{column} now"),
                _ => format!("{column} {value}"),
            });
            Value::from(cells.collect::<Vec<_>>())
        };
        *table = rows.iter().map(row).collect();
    }
    contents
}
