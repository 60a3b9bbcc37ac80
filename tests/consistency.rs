//! Promise: a write with `consistency` is told what backends refuse of its own lines, in InfluxDB's words. Levels are
//! tried in `http_shapes.rs`.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::ProxyConfig;

/// A body with lines that the circles refuse, and the same body given to one InfluxDB.
#[test]
fn what_circles_refuse_is_answered_as_by_one_influxdb() {
    let servers: Vec<Influxd> = (0..5).map(|_| Influxd::start().unwrap()).collect();
    for server in &servers {
        server.create_database("db").unwrap();
        server.query("", "CREATE RETENTION POLICY short ON db DURATION 1h REPLICATION 1").unwrap();
    }
    let circle = |range: std::ops::Range<usize>| servers[range].iter().map(Influxd::url).collect::<Vec<_>>();
    let config = ProxyConfig::new(&[circle(1..3), circle(3..5)]).set("workers", 2);
    let proxy = support::start(&config.set("write_timeout", 60));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first = (0..9).map(|m| format!("m{m} v=1 1\n")).collect::<String>();
    let all = (0..9).map(|m| format!("m{m} v=1i 2\nm{m} w=1 {}\n", 10 + m)).collect::<String>();
    let many = (0..3000).map(|n| format!("m1 {} {n}\n", if n % 7 == 3 { "v=t" } else { "v=2" })).collect::<String>();
    let mut written = 0;
    for (rp, body, conflicts) in [
        ("", first, 0),
        ("", "m0 v=1i 2\n".into(), 1),
        ("", "good v=1 1\nm0 v=2i 2\ngood v=2 2\n".into(), 1),
        ("", "good v=1 1\nm0 v=\"text\" 2\nbad\ngood v=2 2\n".into(), 1),
        ("", all, 9),
        ("", many, 429),
        ("short", format!("old v=1 {now}\nold v=1 1\nold v=1 2\n"), 2),
        ("", "good v=3 3\n".into(), 0),
    ] {
        written += 1;
        let target = format!("/write?db=db&rp={rp}&consistency=all");
        let answers = [servers[0].addr(), proxy.addr()].map(|addr| {
            let mut client = Client::connect(addr).unwrap();
            let reply = client.request("POST", &target, &[], body.as_bytes()).unwrap();
            (reply.status, reply.header("X-Influxdb-Error").map(str::to_owned), reply.text())
        });
        let [wanted, got] = answers.each_ref().map(|(status, header, _)| (*status, header.clone()));
        // Which of several measurements InfluxDB names is chance.
        let cut = |(status, header): (u16, Option<String>)| {
            let header = header.unwrap_or_default();
            let field = header.find(" on measurement").filter(|_| conflicts == 9);
            (
                status,
                field.map_or(header.clone(), |at| header[..at].to_owned()),
                header.rsplit('=').next().map(str::to_owned),
            )
        };
        assert_eq!(cut(got), cut(wanted), "{written}: {answers:?}\n{}", proxy.stderr());
        if conflicts > 0 {
            assert!(answers[1].2.contains(&format!("dropped={conflicts}")), "{written}: {answers:?}");
        }
    }
    // What is not refused is stored.
    let points = servers[0].points("db").unwrap();
    for circle in [&servers[1..3], &servers[3..5]] {
        assert_eq!(circle.iter().map(|server| server.points("db").unwrap()).sum::<u64>(), points);
    }
}

/// Each answer is about the request's own points, although its neighbours' lie in the same log and go to the backends
/// together with them.
#[test]
fn a_write_is_not_told_what_is_refused_of_others() {
    let circles: Vec<Influxd> = (0..2).map(|_| Influxd::start().unwrap()).collect();
    circles.iter().for_each(|backend| backend.create_database("db").unwrap());
    let urls: Vec<_> = circles.iter().map(|backend| vec![backend.url()]).collect();
    let proxy = support::start(&ProxyConfig::new(&urls).set("workers", 2).set("write_timeout", 60));
    let send = |level: &str, line: &str| {
        let length = line.len();
        format!("POST /write?db=db{level} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{line}")
    };
    Client::connect(proxy.addr()).unwrap().write("db", "m v=1 1\n").unwrap();
    proxy.drained(Duration::from_secs(20)).unwrap();
    // Pipelined: refused lines before and behind good ones, with and without a level.
    let (good, bad) = (|n: usize| format!("m v=1 {n}\n"), |n: usize| format!("m v=1i {n}\n"));
    for round in 0..20 {
        let requests = [
            ("", bad(1)),
            ("&consistency=all", good(100 + round)),
            ("", bad(2)),
            ("&consistency=all", bad(3)),
            ("&consistency=all", good(200 + round)),
            ("", bad(4)),
        ];
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(70))).unwrap();
        let bytes: String = requests.iter().map(|(level, line)| send(level, line)).collect();
        let last = "GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        stream.write_all((bytes + last).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let statuses: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
        assert_eq!(statuses, ["204", "204", "204", "400", "204", "204", "204"], "{round}: {text}");
        assert_eq!(text.matches("dropped=1\"}").count(), 1, "{text}");
    }
}
