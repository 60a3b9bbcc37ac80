//! A real Prometheus writes what it scrapes from itself, while the proxy is killed and a backend is down for a while.
//! Then each circle holds every sample that Prometheus holds, and no other, and a second Prometheus reads them back.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::{Influxd, die_with_us};
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::{ProxyConfig, eventually};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support;

const DB: &str = "prometheus";
const PATIENCE: Duration = Duration::from_secs(60);

struct Prometheus {
    child: Child,
    port: Port,
    folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// With this configuration; `PORT` in it is its own.
    fn start(config: &str) -> Self {
        let (port, folder) = (Port::of_loopback().unwrap(), tempfile::tempdir().unwrap());
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.replace("PORT", &port.addr().port().to_string())).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={}", port.addr()));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        die_with_us(&mut command);
        let child = command.spawn().expect("prometheus is not on PATH: run `make setup`");
        let this = Self { child, port, folder };
        assert!(eventually(PATIENCE, || this.get("/-/ready").is_some()), "{}", this.log());
        this
    }

    fn get(&self, target: &str) -> Option<String> {
        let reply = Client::connect(self.port.addr()).ok()?.get(target).ok()?;
        (reply.status == 200).then(|| reply.text())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The samples of a selector up to a time in milliseconds.
    fn samples(&self, selector: &str, until: u64) -> BTreeSet<String> {
        let target = format!("/api/v1/query?query={}", url_encoded(&format!("{selector}[1h]")));
        let text = self.get(&target).unwrap_or_else(|| panic!("{selector}: {}", self.log()));
        let answer: Value = serde_json::from_str(&text).unwrap();
        let mut all = BTreeSet::new();
        for series in answer["data"]["result"].as_array().unwrap() {
            for sample in series["values"].as_array().unwrap() {
                let time = (sample[0].as_f64().unwrap() * 1000.0).round() as u64;
                let value: f64 = sample[1].as_str().unwrap().parse().unwrap();
                // InfluxDB has no NaN.
                if time <= until && !value.is_nan() {
                    all.insert(sample_text(&series["metric"], time, value));
                }
            }
        }
        all
    }
}

fn sample_text(labels: &Value, time: u64, value: f64) -> String {
    let labels: std::collections::BTreeMap<_, _> = labels.as_object().unwrap().iter().collect();
    json!([labels, time, value]).to_string()
}

/// An answer of InfluxDB. Numbers stay texts: `serde_json` reads some of them one bit off.
#[derive(Deserialize)]
struct Answer {
    results: Vec<Results>,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    series: Vec<Held>,
}

#[derive(Deserialize)]
struct Held {
    tags: Value,
    values: Vec<(u64, Box<RawValue>)>,
}

/// The samples that a server holds, up to a time in milliseconds.
fn held(server: &Influxd, until: u64) -> BTreeSet<String> {
    let statement = url_encoded("SELECT value FROM /.*/ GROUP BY *");
    let target = format!("/query?db={DB}&epoch=ms&q={statement}");
    let text = Client::connect(server.addr()).unwrap().get(&target).unwrap().text();
    let answer: Answer = serde_json::from_str(&text).unwrap();
    let mut all = BTreeSet::new();
    for mut series in answer.results.into_iter().flat_map(|result| result.series) {
        // Labels of other series of the same measurement are there without a value.
        series.tags.as_object_mut().unwrap().retain(|_, value| value != "");
        for (time, value) in series.values {
            if time <= until {
                all.insert(sample_text(&series.tags, time, value.get().parse().unwrap()));
            }
        }
    }
    all
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn every_sample_of_a_real_prometheus_is_on_each_circle() {
    let mut circles: Vec<Vec<Influxd>> = (0..2).map(|_| (0..2).map(|_| Influxd::start().unwrap()).collect()).collect();
    circles.iter().flatten().for_each(|server| server.create_database(DB).unwrap());
    let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
    let config = ProxyConfig::new(&urls).set("username", "ada").set("password", "s3cr&t");
    let mut proxy = support::start(&config);
    let url = |path: &str| format!("url: '{}/api/v1/prom/{path}?db={DB}'", proxy.url());
    let account = "basic_auth: {username: ada, password: 's3cr&t'}";
    let writer = Prometheus::start(&format!(
        "global: {{scrape_interval: 500ms}}\n\
         scrape_configs:\n- job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:PORT']}}]\n\
         remote_write:\n- {}\n  {account}\n  queue_config: {{batch_send_deadline: 500ms, max_backoff: 1s}}\n",
        url("write")
    ));
    let reader = Prometheus::start(&format!("remote_read:\n- {}\n  {account}\n  read_recent: true\n", url("read")));

    let pause = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    pause(4);
    proxy.kill();
    pause(3);
    proxy.restart().unwrap();
    pause(2);
    circles[0][1].kill();
    pause(3);
    proxy.kill();
    proxy.restart().unwrap();
    pause(3);
    circles[0][1].restart().unwrap();
    pause(4);

    // It goes on writing; what it holds until now must arrive.
    let until = now() - 1000;
    let want = writer.samples("{__name__=~\".+\"}", until);
    assert!(want.len() > 5_000, "{} samples: {}", want.len(), writer.log());
    for (index, circle) in circles.iter().enumerate() {
        let got = || circle.iter().flat_map(|server| held(server, until)).collect::<BTreeSet<_>>();
        assert!(
            eventually(PATIENCE, || got() == want),
            "circle {index} lacks {:?} of {} and has {:?} more\n{}\n{}",
            want.difference(&got()).take(3).collect::<Vec<_>>(),
            want.len(),
            got().difference(&want).take(3).collect::<Vec<_>>(),
            writer.log(),
            proxy.stderr()
        );
    }
    assert!(!writer.log().contains("non-recoverable error"), "{}", writer.log());
    for selector in ["up", "{job=\"prometheus\"}", "{__name__=~\"prometheus_.*\", quantile!=\"\"}"] {
        let want = writer.samples(selector, until);
        assert!(want.len() > 20, "{selector}: {want:?}");
        let got = reader.samples(selector, until);
        let missing: Vec<_> = want.difference(&got).take(3).collect();
        let more: Vec<_> = got.difference(&want).take(3).collect();
        assert!(missing.is_empty() && more.is_empty(), "{selector}: lacks {missing:?}, has {more:?}\n{}", reader.log());
    }
}
