//! Promise: line protocol in UDP packets leaves what it leaves in one influxd that receives the same packets, and what
//! is not taken is counted. The configuration is that of the quick start, with the key `udp`.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::port::free_for_udp;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

mod support;

const PATIENCE: Duration = Duration::from_secs(30);

struct Receiving {
    circles: Vec<Vec<Influxd>>,
    proxy: Proxy,
}

impl Receiving {
    fn start(udp: Value) -> Self {
        Self::start_with(udp, &[])
    }

    fn start_with(udp: Value, keys: &[(&str, Value)]) -> Self {
        let circles: Vec<Vec<Influxd>> = (0..2).map(|_| (0..2).map(|_| Influxd::start().unwrap()).collect()).collect();
        let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
        let config = ProxyConfig::new(&urls).set("udp", udp).set_all(keys.iter().cloned());
        Self { circles, proxy: support::start(&config) }
    }

    /// A counter of an address.
    fn counted(&self, number: usize, counter: &str) -> u64 {
        let ledger: Value = serde_json::from_str(&self.proxy.get("/ledger").unwrap().1).unwrap();
        ledger["udp"][number][counter].as_u64().unwrap_or_else(|| panic!("{ledger}"))
    }

    /// Waits until so many packets came to the address, and all that was taken of them is delivered.
    fn received(&self, number: usize, packets: u64) {
        let came = eventually(PATIENCE, || self.counted(number, "packets") == packets);
        assert!(came, "{} of {packets}\n{}", self.counted(number, "packets"), self.proxy.stderr());
        self.proxy.drained(PATIENCE).unwrap();
    }

    /// The points of a database, the same in both circles.
    fn stored(&self, db: &str) -> BTreeSet<String> {
        let of = |circle: &Vec<Influxd>| circle.iter().flat_map(|server| stored(server, db)).collect::<BTreeSet<_>>();
        assert_eq!(of(&self.circles[0]), of(&self.circles[1]), "{}", self.proxy.stderr());
        of(&self.circles[0])
    }
}

/// Every point of a server; of `clock` without its time.
fn stored(server: &Influxd, db: &str) -> BTreeSet<String> {
    let Ok(answer) = server.query(db, "SELECT * FROM /.*/ GROUP BY *") else { return BTreeSet::new() };
    let mut all = BTreeSet::new();
    for series in answer["results"][0]["series"].as_array().into_iter().flatten() {
        // What other series of the server have is there without a value.
        let mut tags = series["tags"].clone();
        tags.as_object_mut().into_iter().for_each(|tags| tags.retain(|_, value| value != ""));
        for row in series["values"].as_array().unwrap() {
            let columns = series["columns"].as_array().unwrap().iter().zip(row.as_array().unwrap());
            let columns = columns.filter(|(_, value)| !value.is_null());
            let columns: Vec<_> = columns.filter(|(name, _)| series["name"] != "clock" || *name != "time").collect();
            all.insert(json!([series["name"], tags, columns]).to_string());
        }
    }
    all
}

#[test]
fn packets_leave_what_they_leave_in_one_influxd() {
    let (ours, theirs) = (free_for_udp().unwrap(), free_for_udp().unwrap());
    let mut plain = Influxd::start().unwrap();
    plain.receive_udp(theirs, "udp", "u").unwrap();
    let receiving = Receiving::start(json!([{"bind": ours.to_string(), "precision": "u"}]));
    let long = format!("long,host=a s=\"{}\" 1", "x".repeat(60_000));
    let many = (0..500).map(|n| format!("many,host={} n={n}i {n}", n % 7)).collect::<Vec<_>>().join("\n");
    let packets: [&str; 15] = [
        "cpu,host=a v=1 1000000",
        "cpu,host=a v=2 2000000\n",
        "cpu,host=a v=3 3000000\nmem,host=b v=1i 1000000\n\n# a comment\nmem,host=b v=2i 2000000",
        "clock v=1",
        "",
        "\n",
        // An open text does not reach into the next packet.
        "open s=\"no end",
        "after v=1 1\" 5",
        "after v=2 6",
        "broken",
        "cpu,host=a v=5 5000000",
        "cpu,host=a v=6 5000000",
        "été,straße=ü wert=\"ä, ö\",b=t -7",
        &long,
        &many,
    ];
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |packet: &str| {
        for addr in [ours, theirs] {
            sender.send_to(packet.as_bytes(), addr).unwrap();
        }
    };
    packets.iter().for_each(|packet| send(packet));
    receiving.received(0, packets.len() as u64);
    assert!(eventually(PATIENCE, || stored(&plain, "udp") == receiving.stored("udp")));
    // In one batch with others of a new shard InfluxDB would refuse all of them.
    send("cpu,host=a v=\"another type\" 4000000");
    send("cpu,host=a v=8 8000000");
    receiving.received(0, packets.len() as u64 + 2);
    let got = receiving.stored("udp");
    let same = eventually(PATIENCE, || stored(&plain, "udp") == got);
    let theirs = stored(&plain, "udp");
    let (missing, more): (Vec<_>, Vec<_>) = (theirs.difference(&got).collect(), got.difference(&theirs).collect());
    let log = || std::fs::read_to_string(plain.log()).unwrap();
    assert!(same, "lacks {} {missing:.900?}, has {} more {more:.900?}\n{}", missing.len(), more.len(), log());
    assert!(got.len() > 500, "{}", got.len());
    let counts = ["packets_refused", "packets_lost"].map(|counter| receiving.counted(0, counter));
    assert_eq!(counts, [0, 0], "{}", receiving.proxy.stderr());
}

#[test]
fn good_lines_of_a_packet_are_kept_and_the_others_counted() {
    let addr = free_for_udp().unwrap();
    let udp = json!([
        {"bind": addr.to_string(), "database": "a \"b\" c", "precision": "s"},
        {"bind": free_for_udp().unwrap().to_string(), "retention_policy": "absent"},
    ]);
    let receiving = Receiving::start_with(udp.clone(), &[("write_tracing", true.into())]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"m v=1 1\nm v=9 9\r\nbroken\nm v=2 2\nm v= 3", addr).unwrap();
    receiving.received(0, 1);
    let points: Vec<_> = receiving.stored("a \"b\" c").into_iter().collect();
    assert_eq!(points.len(), 2, "{points:?} {}", receiving.proxy.stderr());
    assert!(points[1].contains("1970-01-01T00:00:02Z"), "{points:?}");
    assert_eq!([receiving.counted(0, "lines_refused"), receiving.counted(0, "packets_refused")], [3, 0]);
    let log = receiving.proxy.stderr();
    assert!(log.contains(r#"write db=a \"b\" c rp= points=2 refused=3"#), "{log}");
    assert!(log.contains("bad lines are refused: unable to parse 'm v=9 9"), "{log}");

    // A policy that is not there: nothing can be taken.
    sender.send_to(b"m v=1 1\nm v=2 2", udp[1]["bind"].as_str().unwrap()).unwrap();
    receiving.received(1, 1);
    assert!(eventually(PATIENCE, || receiving.counted(1, "packets_refused") == 1));
    let log = receiving.proxy.stderr();
    assert!(log.contains("packets are refused: retention policy not found: absent"), "{log}");
}

#[test]
fn every_packet_is_taken_or_counted() {
    let addr = free_for_udp().unwrap();
    let mut receiving = Receiving::start(json!([{"bind": addr.to_string(), "read_buffer": 65536}]));
    // One sender's packets go to one worker, so there are several.
    let senders: Vec<_> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let send = |from: u64, to: u64| {
        for n in from..to {
            let line = format!("m,sender={} n={n}i {}", n % 8, n + 1);
            senders[(n % 8) as usize].send_to(line.as_bytes(), addr).unwrap();
        }
    };
    let sum = |receiving: &Receiving| receiving.counted(0, "packets") + receiving.counted(0, "packets_lost");
    send(0, 400);
    assert!(eventually(PATIENCE, || sum(&receiving) == 400), "{}", sum(&receiving));
    // While it does not run, the kernel has no room for all.
    receiving.proxy.signal(Signal::STOP).unwrap();
    send(400, 5_400);
    receiving.proxy.signal(Signal::CONT).unwrap();
    assert!(eventually(PATIENCE, || sum(&receiving) == 5_400), "{}", sum(&receiving));
    assert!(receiving.counted(0, "packets_lost") > 0);
    assert!(receiving.proxy.stderr().contains("packets come faster than they are taken"));
    receiving.proxy.drained(PATIENCE).unwrap();
    let taken = receiving.counted(0, "packets");
    assert_eq!(receiving.stored("udp").len() as u64, taken);

    // Points that were taken outlive the process; the addresses are free for the next one.
    receiving.proxy.terminate(Duration::from_secs(10)).unwrap();
    receiving.proxy.restart().unwrap();
    receiving.proxy.kill();
    receiving.proxy.restart().unwrap();
    assert_eq!(receiving.stored("udp").len() as u64, taken);
    send(5_400, 5_401);
    receiving.received(0, 1);
    assert_eq!(receiving.stored("udp").len() as u64, taken + 1);
}

/// Others take the packets of its senders.
#[test]
fn a_worker_whose_log_has_failed_receives_nothing_more() {
    let addr = free_for_udp().unwrap();
    let receiving = Receiving::start(json!([{"bind": addr.to_string()}]));
    let senders: Vec<_> = (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let send = |time: usize| {
        for (number, sender) in senders.iter().enumerate() {
            sender.send_to(format!("m,sender={number} n=1i {time}").as_bytes(), addr).unwrap();
        }
    };
    send(1);
    receiving.received(0, 16);
    assert_eq!(receiving.stored("udp").len(), 16);
    std::fs::remove_dir_all(receiving.proxy.data_dir().join("worker-1")).unwrap();
    let failed = || receiving.proxy.health().unwrap().iter().all(|circle| circle.workers_failed == [1]);
    assert!(eventually(PATIENCE, failed), "{}", receiving.proxy.stderr());
    // Until it has seen that, a sender's packets may still be refused, or be lost with its socket.
    let mut time = 1;
    let all_taken = eventually(PATIENCE, || {
        let before = ["packets", "packets_refused"].map(|counter| receiving.counted(0, counter));
        time += 1;
        send(time);
        let came = || receiving.counted(0, "packets") == before[0] + 16;
        eventually(Duration::from_secs(3), came) && receiving.counted(0, "packets_refused") == before[1]
    });
    assert!(all_taken, "{}", receiving.proxy.stderr());
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let influxd = Influxd::start().unwrap();
    let bind = other.local_addr().unwrap().to_string();
    let config = ProxyConfig::new(&[vec![influxd.url()]]).set("udp", json!([{"bind": bind}]));
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_fluxgate"));
    let error = config.start(executable).err().unwrap().to_string();
    let want = format!("udp[0].bind: cannot receive on {bind}: another program receives there");
    assert!(error.contains(&want), "{error}");
}
