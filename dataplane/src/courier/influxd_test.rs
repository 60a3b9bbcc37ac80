//! Tests the courier against a real InfluxDB 1.x if one is installed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::courier_test::rig_with;
use crate::io::{self, block_on};
use crate::precision::Precision;

const INFLUXD: &str = "/usr/bin/influxd";

struct Influxd {
    process: Child,
    http: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Influxd {
    /// `data`: lines for this section of its configuration. None: influxd is not installed.
    async fn start(data: &str) -> Option<Self> {
        if !std::path::Path::new(INFLUXD).exists() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (rpc, http) = (free(), free());
        let path = dir.path().display();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"{rpc}\"\n[meta]\ndir = \"{path}/meta\"\n[data]\n\
             dir = \"{path}/data\"\nwal-dir = \"{path}/wal\"\n{data}\n[monitor]\nstore-enabled = false\n[http]\n\
             bind-address = \"{http}\"\nlog-enabled = false\n"
        );
        let file = dir.path().join("influxdb.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new(INFLUXD)
            .arg("-config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, http, _dir: dir };
        for _ in 0..500 {
            if TcpStream::connect(http).is_ok() {
                return Some(server);
            }
            io::sleep(Duration::from_millis(20)).await;
        }
        panic!("influxd does not start");
    }

    fn query(&self, method: &str, db: &str, q: &str) -> String {
        let mut q_encoded = Vec::new();
        crate::http::query::percent_encode(&mut q_encoded, q.as_bytes());
        let q = String::from_utf8(q_encoded).unwrap();
        let mut stream = TcpStream::connect(self.http).unwrap();
        let request = format!(
            "{method} /query?db={db}&epoch=ns&q={q} HTTP/1.1\r\nHost: x\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    fn count(&self, db: &str, measurement: &str) -> usize {
        let answer = self.query("GET", db, &format!("SELECT * FROM {measurement}"));
        let Some((_, values)) = answer.split_once("\"values\":[") else { return 0 };
        values.matches('[').count()
    }

    /// Requests to write that it has got.
    fn writes(&self) -> u64 {
        let answer = self.query("GET", "", "SHOW STATS FOR 'httpd'");
        let json = &answer[answer.find("{\"results").unwrap()..];
        let json: serde_json::Value = serde_json::Deserializer::from_str(json).into_iter().next().unwrap().unwrap();
        let series = &json["results"][0]["series"][0];
        let column = series["columns"].as_array().unwrap().iter().position(|c| c == "writeReq").unwrap();
        series["values"][0][column].as_u64().unwrap()
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[test]
fn a_real_influxd_keeps_the_good_points_and_its_refusals_become_dead_letters() {
    block_on(|| async {
        let Some(influxd) = Influxd::start("").await else { return };
        for db in ["conflict", "fresh", "expiry"] {
            influxd.query("POST", "", &format!("CREATE DATABASE {db}"));
        }
        influxd.query("POST", "", "CREATE RETENTION POLICY short ON expiry DURATION 1h REPLICATION 1");
        let slow = |s: &mut super::Setup| s.rewrite_interval = Duration::from_secs(1);
        let rig = rig_with(influxd.http, slow, ("", ""), false);
        // In the middle of a shard's week.
        let week = 1_760_000_000;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

        // The field is a float in the shard; every third line sends an integer.
        rig.log.append_with("conflict", "", Precision::Second, &[&format!("m f=0.5 {}", week - 1000)]);
        rig.served().await;
        let line = |i: u64, bad: bool| format!("m f={i}{} {}", if bad { "i" } else { "" }, week - i);
        let lines: Vec<String> = (0..300).map(|i| line(i, i % 3 == 0)).collect();
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        rig.log.append_with("conflict", "", Precision::Second, &all);
        rig.served().await;
        assert_eq!(influxd.count("conflict", "m"), 201);
        assert_eq!(rig.reports.rejected("conflict"), [("field type conflict", 100)]);
        let bad: Vec<&str> = all.iter().copied().step_by(3).collect();
        assert_eq!(rig.dead_lines(), bad);

        // Both types are new to the shard, so the whole batch is refused first. The type that arrives first stays.
        rig.log.append_with("fresh", "", Precision::Second, &all[1..]);
        rig.served().await;
        assert_eq!(influxd.count("fresh", "m"), 200);
        assert_eq!(rig.reports.rejected("fresh"), [("field type conflict", 99)]);

        let line = |i: u64, old: bool| format!("m f={i} {}", if old { now - 100_000 - i } else { now - i });
        let lines: Vec<String> = (0..300).map(|i| line(i, i % 5 == 0)).collect();
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        rig.log.append_with("expiry", "short", Precision::Second, &all);
        rig.served().await;
        assert_eq!(influxd.count("expiry", "short.m"), 240);
        assert_eq!(rig.reports.rejected("expiry"), [("points beyond retention policy", 60)]);
        rig.log.close();
    });
}

#[test]
fn a_real_influxd_at_its_limit_of_series_keeps_all_others_for_few_requests() {
    for limit in ["max-series-per-database", "max-values-per-tag"] {
        at_limit_of_series(limit);
    }
}

fn at_limit_of_series(limit: &'static str) {
    block_on(move || async move {
        let Some(influxd) = Influxd::start(&format!("{limit} = 20")).await else { return };
        influxd.query("POST", "", "CREATE DATABASE full");
        let rig = rig_with(influxd.http, |_| {}, ("", ""), false);
        let known: Vec<String> = (0..20).map(|i| format!("m,host=h{i} v=0 1")).collect();
        rig.log.append("full", &known.iter().map(String::as_str).collect::<Vec<_>>());
        rig.served().await;
        let mut refused = Vec::new();
        // InfluxDB counts for one shard only, so two of them cost more.
        for (round, shards, most) in [(1, 1, 4), (2, 1, 4), (3, 2, 100)] {
            // Every third line is of a new series, half of them the same ones each time.
            let host = |i: u64| match i % 3 {
                0 => format!("new{}", i + 300 * (i % 2) * round),
                _ => format!("h{}", i % 20),
            };
            let time = |i: u64| round * 1000 + i + i % shards * 14 * 86_400_000_000_000;
            let lines: Vec<String> = (0..300).map(|i| format!("m,host={} v={i} {}", host(i), time(i))).collect();
            let before = influxd.writes();
            rig.log.append("full", &lines.iter().map(String::as_str).collect::<Vec<_>>());
            rig.served().await;
            let requests = influxd.writes() - before;
            assert!(requests <= most, "{requests} requests for 100 refused lines in {shards} shards");
            refused.extend(lines.into_iter().step_by(3));
            assert_eq!(influxd.count("full", "m"), 20 + 200 * round as usize);
        }
        assert_eq!(rig.dead_lines(), refused);
        let rejected = rig.reports.rejected("full");
        assert_eq!(rejected.len(), 3);
        assert!(rejected.iter().all(|(reason, n)| reason.starts_with(limit) && *n == 100), "{rejected:?}");
        rig.log.close();
    });
}
